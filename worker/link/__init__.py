"""The container's one link to Redis, and what a job sees of it.

`await connect(settings)` gives this process's link (`worker.link.api.Link`); `ContainerLink` is the one in the
worker's main process.
"""

from __future__ import annotations

from worker.link.api import Link, Rule, Rules, TargetSpec, Use
from worker.link.client import SocketLink
from worker.link.connect import LinkHolder, OpenLink, connect, open_link
from worker.link.container import ContainerLink
from worker.link.embedded import EmbeddedLink
from worker.link.fingerprint import key_fingerprint
from worker.link.settings import LinkSettings

__all__ = [
    "ContainerLink",
    "EmbeddedLink",
    "Link",
    "LinkHolder",
    "LinkSettings",
    "OpenLink",
    "Rule",
    "Rules",
    "SocketLink",
    "TargetSpec",
    "Use",
    "connect",
    "key_fingerprint",
    "open_link",
]
