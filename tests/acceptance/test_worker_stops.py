"""How a worker with a live call ends: asked by the fleet, by one signal (to all its processes), by two."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.wire.vocabulary import DirectiveKind, WorkerState
from tests.support.fleet_rig import leftovers
from tests.support.link_fleet import leader_hand
from tests.support.waiting import wait_until

# Each worker and job process imports livekit: seconds of CPU on a busy machine.
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]
START_S = 120.0

AGENT = """
import asyncio
import os
from pathlib import Path

from livekit.agents import AgentServer, JobContext

here = Path(os.environ["CALL_FOLDER"])
server = AgentServer()


async def session_end(ctx: JobContext) -> None:
    (here / "session_end").touch()


@server.rtc_session(on_session_end=session_end)
async def answer(ctx: JobContext) -> None:
    await ctx.connect()
    while not (here / "hang_up").exists():
        with (here / "ticks").open("a") as ticks:
            ticks.write(".")
        await asyncio.sleep(0.05)
    (here / "hung_up").touch()
    ctx.shutdown()
"""


@dataclass
class Worker:
    process: asyncio.subprocess.Process
    folder: Path

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    @property
    def ticks(self) -> int:
        """A sign of life of the call, twenty a second."""
        return (self.folder / "ticks").stat().st_size if self.has("ticks") else 0

    @property
    def log(self) -> str:
        return (self.folder / "worker.log").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """To all processes of the worker, as systemd does."""
        os.killpg(self.process.pid, number)

    async def ended(self, within_s: float) -> int:
        async with asyncio.timeout(within_s):
            return await self.process.wait()


@asynccontextmanager
async def worker_with_a_call(folder: Path, **env: str) -> AsyncGenerator[Worker]:
    (folder / "called.py").write_text(AGENT)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("WORKER_", "REDIS_", "LIVEKIT_"))}
    clean |= {
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(folder)]),
        "CALL_FOLDER": str(folder),
        "WORKER_HEALTH_PORT": "0",
        "WORKER_LOG_FORMAT": "json",
        "LIVEKIT_URL": "ws://127.0.0.1:9",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "a secret that is at least 32 bytes long",
        "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
    }
    with (folder / "worker.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.worker_with_a_call", "called:server",
            env=clean | env, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    worker = Worker(process, folder)
    try:
        await wait_until(lambda: worker.ticks or process.returncode is not None, "a call", START_S, 0.1)
        assert process.returncode is None, worker.log
        yield worker
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def test_after_a_drain_directive_a_signal_lets_the_call_end(
    tmp_path: Path, redis_url: str, fleet: str
) -> None:
    async with leader_hand(redis_url, fleet) as leader:
        env = {"REDIS_URL": redis_url, "WORKER_FLEET": fleet, "WORKER_ID": "w1"}
        async with worker_with_a_call(tmp_path, **env) as worker:

            async def says(state: WorkerState) -> bool:
                info = await leader.info()
                return info is not None and info.state is state

            await wait_until(lambda: says(WorkerState.RUNNING), "the worker says that it runs", 20, 0.1)
            await leader.direct("w1", DirectiveKind.DRAIN, within_ms=60_000)
            await wait_until(lambda: says(WorkerState.DRAINING), "the worker says that it drains", 20, 0.1)
            worker.signal(signal.SIGTERM)
            heard = worker.ticks
            await wait_until(lambda: worker.ticks > heard + 20, "the call goes on", 20, 0.1)
            assert worker.process.returncode is None
            (tmp_path / "hang_up").touch()
            assert await worker.ended(60) == 0, worker.log
    assert worker.has("hung_up"), "the call ended by itself"
    assert worker.has("session_end"), "what the user's AgentServer wants done at the end was done"
    assert "non-zero exit code" not in worker.log
    assert "Traceback" not in worker.log


async def test_a_second_signal_ends_the_call_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with worker_with_a_call(tmp_path) as worker:
        worker.signal(signal.SIGTERM)
        await wait_until(lambda: "worker_draining" in worker.log, "the drain began", 10)
        worker.signal(signal.SIGTERM)
        assert await worker.ended(60) == 0, worker.log
        assert "worker_calls_ended" in worker.log
        assert not worker.has("hung_up"), "nobody waited for the call"
        await wait_until(lambda: leftovers(str(tmp_path), tmp_path) == [], "every process is gone", 15, 0.1)
