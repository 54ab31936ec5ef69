"""The container's one link, in the worker's main process: the core, Redis, and the socket for its jobs.

So a container holds two Redis connections however many calls it has, is one *worker* to the fleet, and its
breaker learns from all its calls even with Redis gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from worker.link.embedded import EmbeddedLink
from worker.link.server import JobServer
from worker.link.settings import LinkSettings

if TYPE_CHECKING:
    from worker.settings import WorkerSettings


class ContainerLink(EmbeddedLink):
    """`await start()`, then put `socket_path` into WORKER_LINK_SOCKET before job processes are started."""

    def __init__(self, settings: LinkSettings) -> None:
        super().__init__(settings)
        self.server = JobServer(self, settings.socket)

    @classmethod
    def from_settings(cls, settings: WorkerSettings, *, agent: str = "") -> Self:
        """From the worker's settings; an empty `link_socket` makes one in a private directory."""
        return cls(LinkSettings.of(settings, agent=agent))

    @property
    def socket_path(self) -> str:
        return self.server.path

    @property
    def jobs(self) -> int:
        """Job processes connected now."""
        return len(self.server.jobs)

    async def start(self) -> None:
        """Listen for jobs, then look for Redis. Raises OSError or ValueError for a path that cannot be used."""
        await self.server.start()
        await super().start()

    async def aclose(self) -> None:
        await super().aclose()
        if self.closed:
            await self.server.aclose()
