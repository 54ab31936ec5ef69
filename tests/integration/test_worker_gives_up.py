"""A worker that cannot go on says so in one line and ends, with every process it started."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator

import pytest
from livekit.agents import AgentServer

from worker.runtime import server as runtime
from worker.runtime.server import CannotServe, ServeOptions, serve
from worker.settings import WorkerSettings, read_settings

# Job processes import livekit: seconds of CPU on a busy machine.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def settings(monkeypatch: pytest.MonkeyPatch, livekit_port: int, health_port: int) -> WorkerSettings:
    for name, value in {
        "LIVEKIT_URL": f"ws://127.0.0.1:{livekit_port}",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "a secret that is at least 32 bytes long",
        "WORKER_HEALTH_PORT": str(health_port),
        "WORKER_SIMULATOR_URL": "http://127.0.0.1:9",
        "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
    }.items():
        monkeypatch.setenv(name, value)
    # The container sets these for its job processes; they must not outlive the test.
    for name in ("WORKER_LINK_SOCKET", "WORKER_AGENT", "WORKER_ID", "WORKER_LOCAL_CALLERS"):
        monkeypatch.setenv(name, "")
    return read_settings()


async def test_livekit_that_never_answers_ends_the_worker_and_its_processes(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    made = runtime._agent_server  # pyright: ignore[reportPrivateUsage]  # livekit waits two minutes of attempts

    def impatient(settings: WorkerSettings, options: ServeOptions, agent: runtime.UserAgent) -> AgentServer:
        server = made(settings, options, agent)
        server.update_options(max_retry=1)
        return server

    monkeypatch.setattr(runtime, "_agent_server", impatient)
    wanted = settings(monkeypatch, closed_port, health_port=0)
    with pytest.raises(
        CannotServe, match=f"LiveKit at ws://127.0.0.1:{closed_port} was given up.*LIVEKIT_URL"
    ):
        await serve(wanted, ServeOptions())
    # A job process that stays keeps the interpreter from ending: the container would hang, looking healthy.
    assert multiprocessing.active_children() == []


async def test_a_taken_health_port_is_named(
    monkeypatch: pytest.MonkeyPatch, closed_port: int, taken_port: int
) -> None:
    wanted = settings(monkeypatch, closed_port, health_port=taken_port)
    with pytest.raises(CannotServe, match=f"listen on 127.0.0.1:{taken_port} .*WORKER_HEALTH_PORT"):
        await serve(wanted, ServeOptions())
