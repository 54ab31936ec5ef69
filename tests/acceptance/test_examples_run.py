"""An example in a real worker, with a real caller, against the stand-ins."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_until
from worker.simulator import SimulatorServer

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

# Two processes import livekit and its plugins before the first word; a busy machine takes a minute for it.
START_S = 150.0


def turns(record: Path) -> list[dict[str, Any]]:
    if not record.exists():
        return []
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["event"] == "turn"]


@asynccontextmanager
async def calling(example: str, sim: SimulatorServer, folder: Path) -> AsyncGenerator[Path]:
    """`worker dev` with an example and one caller, who has had a turn; what callers lived through, one line each."""
    record, log = folder / "calls.jsonl", folder / "log.txt"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WORKER_", "REDIS_", "LIVEKIT_"))}
    env |= {
        "WORKER_SIMULATOR_URL": sim.url,
        "WORKER_CALLERS_RECORD": str(record),
        "WORKER_AUDIO_CACHE_DIR": str(folder / "cache"),
        "WORKER_TURN_DETECTION": "vad",
        "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
    }
    command = [sys.executable, "-m", "worker", "dev", "--agent", f"worker.examples.{example}:entrypoint"]
    with log.open("wb") as said:
        worker = await asyncio.create_subprocess_exec(
            *command, "--local-callers", "1", env=env, stdout=said, stderr=said
        )
    try:
        await wait_until(lambda: turns(record) or worker.returncode is not None, "a first turn", START_S, 0.1)
        assert turns(record), f"the worker ended with {worker.returncode}: {log.read_text()}"
        yield record
    finally:
        if worker.returncode is None:
            worker.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(worker.wait(), 15)
        except TimeoutError:
            worker.kill()
            await worker.wait()


@pytest.mark.parametrize("example", ["minimal", "after", "custom_handlers"])
async def test_an_example_runs_in_a_worker_and_answers(example: str, tmp_path: Path) -> None:
    async with SimulatorServer() as sim, calling(example, sim, tmp_path) as record:
        turn = turns(record)[0]
        assert (turn["silent"], turn["lost"]) == (False, 0)
        sim.set_fault("llm", "groq", "status", status=503)
        asked = len(turns(record))
        await wait_until(lambda: len(turns(record)) >= asked + 2, "a turn with the first model gone", 60, 0.1)
        assert not turns(record)[asked + 1]["silent"]


async def test_an_example_runs_in_a_worker_and_its_sound_is_heard_when_the_voice_is_gone(
    tmp_path: Path,
) -> None:
    async with SimulatorServer() as sim, calling("own_audio", sim, tmp_path) as record:
        assert turns(record)[0]["heard"], "the agent answers"
        for provider in ("cartesia", "groq"):
            sim.set_fault("tts", provider, "refuse")
        asked = len(turns(record))
        await wait_until(lambda: len(turns(record)) >= asked + 2, "a turn with all voices gone", 60, 0.1)
        turn = turns(record)[asked + 1]
        assert (turn["silent"], turn["heard"]) == (False, []), "recorded sound, no word of the stand-in's"
