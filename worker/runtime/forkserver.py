"""Imported in the process that job processes are forked from, and nowhere else (`AgentServer(preload_modules=…)`).

SIGTERM to a whole group (systemd does so by default) must not end it: without it livekit takes every job for dead
and calls end that were to be drained. It ends by itself when the worker has gone.
"""

from __future__ import annotations

import importlib
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
importlib.import_module("worker.runtime.session_hook")  # once here, and not in every job process
