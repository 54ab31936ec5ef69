"""A rehearsal with the shipped agent: its callers' record, and that nothing heavy waits for the first call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet_rig import leftovers
from tests.support.waiting import wait_until
from worker.simulator import SimulatorServer

# Each worker and job process imports livekit: seconds of CPU on a busy machine.
pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

WARMED = """
import sys
from types import SimpleNamespace
from worker.runtime import jobs
jobs.prewarm(SimpleNamespace(userdata={}))
from worker.providers import tls_context
from worker.recovery.sounds import recording
print(tls_context.cache_info().currsize, recording.cache_info().currsize)
for name in ("worker.runtime.session_hook", "worker.recovery", "anyio._backends._asyncio", "openai.resources.chat"):
    print(name in sys.modules)
"""


def clean_env() -> dict[str, str]:
    ours = ("WORKER_", "REDIS_", "LIVEKIT_", "GROQ_", "CARTESIA_", "OPENAI_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)}


def lines(record: Path, event: str) -> list[dict[str, Any]]:
    if not record.exists():
        return []
    whole, _, _ = record.read_text(encoding="utf-8").rpartition("\n")
    found = [json.loads(line) for line in whole.splitlines()]
    return [line for line in found if line["event"] == event]


async def test_a_job_process_is_warm_before_it_has_a_call() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WARMED, env=clean_env(), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().split() == ["1", "2", "True", "True", "True", "True"]


async def test_what_a_rehearsals_callers_live_through_is_recorded(tmp_path: Path) -> None:
    record, log = tmp_path / "calls.jsonl", tmp_path / "worker.log"
    async with SimulatorServer() as sim:
        env = clean_env() | {
            "WORKER_SIMULATOR_URL": sim.url,
            "WORKER_CALLERS_RECORD": str(record),
            "WORKER_TURN_DETECTION": "vad",
            "WORKER_AUDIO_CACHE_DIR": str(tmp_path / "cache"),
            "WORKER_LOG_FORMAT": "json",
            "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
        }
        with log.open("wb") as sink:
            worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "worker", "start", "--local-callers", "1",
                env=env, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        try:
            await wait_until(
                lambda: lines(record, "turn") or worker.returncode is not None, "a first turn", 120, 0.1
            )
            assert worker.returncode is None, log.read_text()
            os.killpg(worker.pid, signal.SIGTERM)
            # Rehearsed calls are not waited for.
            assert await asyncio.wait_for(worker.wait(), 40) == 0, log.read_text()
        finally:
            if worker.returncode is None:
                os.killpg(worker.pid, signal.SIGKILL)
                await worker.wait()
    turn = lines(record, "turn")[0]
    assert turn["expected"] > 0, turn
    assert (turn["silent"], turn["lost"], turn["twice"], turn["other"]) == (False, 0, 0, 0), turn
    assert turn["stt_lost"] == 0
    states = [line["state"] for line in lines(record, "state")]
    assert {"talking", "waiting", "listening"} <= set(states)
    assert states[-1] == "gone", "the caller hung up in order"
    text = log.read_text()
    assert '"outcome": "ok"' in text, "the session was guarded, and reported its end"
    assert "non-zero exit code" not in text
    assert "Traceback" not in text
    await wait_until(lambda: leftovers(str(record), tmp_path) == [], "every process is gone", 15, 0.1)
