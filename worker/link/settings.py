"""What a link needs to know, taken from the worker's settings or the environment."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from supervisor.wire.keys import check_fleet, check_worker

if TYPE_CHECKING:
    from worker.settings import WorkerSettings


def host_name() -> str:
    """This host's name, of characters that every key and label may hold."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._")[:64] or "worker"


def _worker_id() -> str:
    return f"{host_name()}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, repr=False)
class LinkSettings:
    """fleet, worker: see `supervisor.wire.keys` for what may be in a name (`KeyNameError`).

    redis_url: "" for none (the breaker alone guards); it may hold a password and is in no repr or log.
    socket: path of the container's Unix socket, "" when this process is not one of its jobs.
    """

    fleet: str = "default"
    worker: str = field(default_factory=_worker_id)
    redis_url: str = ""
    socket: str = ""
    host: str = field(default_factory=host_name)
    agent: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        check_fleet(self.fleet)
        check_worker(self.worker)

    def __repr__(self) -> str:
        return f"LinkSettings(fleet={self.fleet!r}, worker={self.worker!r}, socket={self.socket!r})"

    @classmethod
    def of(cls, settings: WorkerSettings, *, agent: str = "") -> Self:
        """From the worker's settings."""
        url = settings.redis_url.get_secret_value() if settings.redis_url else ""
        return cls(
            fleet=settings.fleet, worker=settings.id, redis_url=url, socket=settings.link_socket, agent=agent
        )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """From WORKER_LINK_SOCKET, WORKER_FLEET, WORKER_ID and REDIS_URL."""
        env = os.environ if env is None else env
        return cls(
            fleet=env.get("WORKER_FLEET") or "default",
            worker=env.get("WORKER_ID") or _worker_id(),
            redis_url=env.get("REDIS_URL", ""),
            socket=env.get("WORKER_LINK_SOCKET", ""),
        )
