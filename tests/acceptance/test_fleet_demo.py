"""`supervisor demo` as a user runs it: it ends by itself, when told to, or when it is killed; nothing is left over."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.fleet_rig import leftovers
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for leftovers in /proc"),
]

# Importing livekit and a voice detector takes seconds of CPU in each process.
READY_S = 150.0
GONE_S = 40.0


class Demo:
    """A running demo, and how to recognise whatever it started."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str, folder: Path) -> None:
        self.process, self._mark, self._folder = process, mark, folder

    def said(self) -> str:
        """What it has told its user."""
        return (self._folder / "said.txt").read_text()

    def running(self) -> list[tuple[int, str]]:
        """All processes that belong to it."""
        return leftovers(self._mark, self._folder)

    async def has_all_parts(self) -> None:
        """Wait until Redis, its watcher, stand-ins, supervisor, worker and a job process run."""

        def all_run() -> bool:
            assert self.process.returncode is None, self.said()
            lines = [line for _, line in self.running()]
            parts = ("valkey-server", "worker.simulator", "supervisor serve", "worker start", "forkserver")
            return all(any(part in line for line in lines) for part in parts)

        await wait_until(all_run, "all parts of the demo run", READY_S, every_s=0.1)

    async def leaves_nothing(self) -> None:
        """Wait until no process with the mark runs."""
        try:
            await wait_until(lambda: not self.running(), "everything has ended", GONE_S, every_s=0.1)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; left: {self.running()}\n{self.said()}") from None


@asynccontextmanager
async def demo(folder: Path, *args: str) -> AsyncGenerator[Demo]:
    mark = f"demo-{secrets.token_hex(8)}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "SUPERVISOR_", "WORKER_"))}
    said = folder / "said.txt"
    with said.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisor", "demo", "--json", "--port", "0", "--simulator-port", "0",
            "--callers", "2", "--workers", "1", *args,
            env={**clean, "SV_TEST_MARK": mark, "TMPDIR": str(folder), "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=err,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield Demo(process, mark, folder)
    finally:
        for pid, _ in leftovers(mark, folder):
            os.kill(pid, signal.SIGKILL)
        await process.wait()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_demo_ends_by_itself_and_says_what_happened(tmp_path: Path) -> None:
    async with demo(tmp_path, "--for", "8s") as running:
        assert running.process.stdout is not None
        async with asyncio.timeout(READY_S + GONE_S):
            output = await running.process.stdout.read()
            code = await running.process.wait()
        assert code == 0, running.said()
        await running.leaves_nothing()
    result = json.loads(output)
    assert result["ready_s"] > 0
    callers = result["callers"]
    assert callers["turns"] >= 2
    assert callers["silent"] == 0
    assert 0 <= callers["dead_air_s"]["p50"] <= callers["dead_air_s"]["max"]
    assert [w["id"] for w in result["workers"]] == ["worker-1"]
    roles = {item["role"] for item in result["targets"]}
    assert roles == {"stt", "llm", "tts"}
    assert {item["state"] for item in result["targets"]} == {"healthy"}
    assert result["verdicts"] == []
    assert running.said().splitlines()[-1] == "everything has ended"
    assert "Traceback" not in running.said()
    # Redis' data, logs and sockets went with it.
    assert names_in(tmp_path) == ["said.txt"]


async def test_a_demo_that_is_interrupted_ends_everything(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        await running.has_all_parts()
        os.kill(running.process.pid, signal.SIGINT)
        async with asyncio.timeout(GONE_S):
            code = await running.process.wait()
        await running.leaves_nothing()
        assert code == 0, running.said()
        assert "Traceback" not in running.said()


async def test_a_demo_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    async with demo(tmp_path) as running:
        await running.has_all_parts()
        os.kill(running.process.pid, signal.SIGKILL)
        await running.process.wait()
        await running.leaves_nothing()
