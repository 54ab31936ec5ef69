"""One link per process: `connect()` gives the process's own, made by the first who asks."""

from __future__ import annotations

import asyncio
from typing import Protocol

from worker.link.api import Link
from worker.link.client import SocketLink
from worker.link.embedded import EmbeddedLink
from worker.link.settings import LinkSettings
from worker.settings import WorkerSettings


class OpenLink(Link, Protocol):
    """A link that was opened and wants to be closed, once by each who opened it."""

    async def aclose(self) -> None: ...


async def open_link(settings: LinkSettings | WorkerSettings | None = None) -> SocketLink | EmbeddedLink:
    """A link of one's own: over the container's socket if one is set, else with Redis tasks in this loop if
    there is a Redis URL, else with the local breaker alone. Never fails because something is down.

    Without settings the environment is read. Raises `supervisor.wire.keys.KeyNameError` for a fleet or worker
    name that cannot be used, ValueError for a Redis URL that cannot.
    """
    if settings is None:
        settings = LinkSettings.from_env()
    elif isinstance(settings, WorkerSettings):
        settings = LinkSettings.of(settings)
    link = SocketLink(settings) if settings.socket else EmbeddedLink(settings)
    await link.start()
    return link


class LinkHolder:
    """Holds one link for the many users of one event loop; it closes with the last of them."""

    def __init__(self) -> None:
        self._link: SocketLink | EmbeddedLink | None = None
        self._opening: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def connect(
        self, settings: LinkSettings | WorkerSettings | None = None
    ) -> SocketLink | EmbeddedLink:
        """The one link; `settings` matter to the first who asks. Each user awaits `aclose()` once."""
        loop = asyncio.get_running_loop()
        if self._opening is None or self._loop is not loop:  # a loop that is gone took its link with it
            self._link, self._opening, self._loop = None, asyncio.Lock(), loop
        async with self._opening:
            if self._link is None or self._link.closed:
                self._link = await open_link(settings)
            else:
                self._link.share()
            return self._link


_holders: list[LinkHolder] = []  # this process's one holder, from the first `connect()` on


async def connect(settings: LinkSettings | WorkerSettings | None = None) -> SocketLink | EmbeddedLink:
    """This process's link; see `LinkHolder.connect`."""
    if not _holders:
        _holders.append(LinkHolder())
    return await _holders[0].connect(settings)
