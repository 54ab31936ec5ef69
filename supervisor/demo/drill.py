"""`supervisor drill`: an outage of the primary LLM under load, for three variants of the same agent.

Each variant gets its own stand-ins, supervisor and workers, one after the other, so that none helps or slows
another. What is measured: what the users of the sessions saw, and what the dead provider was still sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.demo.drill_stats import Outage, Verdicts, summarise
from supervisor.demo.rig import Rig, rig

PRIMARY = ("llm", "groq", "llama-3.3-70b-versatile")
PRIMARY_ID = ":".join(PRIMARY)
VARIANTS = ("plain", "upstream", "guarded")
# Fault, as the stand-ins take it: hang answers nothing, slow gives its first token after 20 s.
SCENARIOS: dict[str, dict[str, Any]] = {
    "status-503": {"fault": "status", "status": 503},
    "status-429": {"fault": "status", "status": 429, "retry_after": 10},
    "status-401": {"fault": "status", "status": 401},
    "hang": {"fault": "hang"},
    "slow": {"fault": "slow", "delay_s": 20},
    "cut": {"fault": "cut", "after_chunks": 5},
}
WORKERS = 4
START_TIMEOUT_S = 90.0
POLL_S = 0.1

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """One drill. Durations in seconds; `recover_s` is how long recovery is watched at most."""

    scenario: str
    sessions: int = 40
    variants: Sequence[str] = VARIANTS
    every_s: float = 4.0
    healthy_s: float = 16.0
    outage_s: float = 30.0
    recover_s: float = 45.0


async def run_drill(plan: DrillPlan, say: Progress) -> dict[str, Any]:
    """The whole drill; the returned dictionary is what `--json` prints. Raises `StartFailed`."""
    rows: list[dict[str, Any]] = []
    for variant in plan.variants:
        say(f"{variant}: starting {plan.sessions} sessions in {WORKERS} workers")
        async with rig() as set_:
            rows.append(await _run_variant(plan, variant, set_, say))
    return {"scenario": plan.scenario, "sessions": plan.sessions, "variants": rows}


async def _run_variant(plan: DrillPlan, variant: str, set_: Rig, say: Progress) -> dict[str, Any]:
    record = set_.folder / "turns.jsonl"
    record.touch()
    shares = [plan.sessions // WORKERS + (n < plan.sessions % WORKERS) for n in range(WORKERS)]
    workers = [
        await set_.processes.start(
            f"worker-{n + 1}",
            ["worker.drill.text", "--variant", variant, "--sessions", str(share), "--simulator", set_.simulator_url,
             "--record", str(record), "--worker", f"drill-{n + 1}", "--every", str(plan.every_s)],
            set_.worker_environment(f"drill-{n + 1}"),
        )
        for n, share in enumerate(shares) if share
    ]  # fmt: skip
    for child in workers:
        await set_.processes.wait_ready(
            child, lambda c=child: _has_turns(record, c.name.replace("worker", "drill")), START_TIMEOUT_S
        )
    await asyncio.sleep(plan.healthy_s)
    say(f"{variant}: {PRIMARY_ID} now has {plan.scenario} for {plan.outage_s:.0f} s")
    await set_.stand_ins.delete("/requests")
    from_ms = _now_ms()
    watch = asyncio.create_task(_watch(set_, plan)) if variant == "guarded" else None
    await set_.set_fault(*PRIMARY, SCENARIOS[plan.scenario])
    await asyncio.sleep(plan.outage_s)
    await set_.set_fault(*PRIMARY, {"fault": "ok"})
    to_ms = _now_ms()
    say(f"{variant}: mended; waiting for the last turns and the recovery")
    verdicts = await watch if watch is not None else await _settle(plan)
    items = (
        await set_.stand_ins.get(
            "/requests", params={"role": "llm", "provider": PRIMARY[1], "model": PRIMARY[2]}
        )
    ).json()["items"]
    dead = sum(from_ms <= item["at"] < to_ms for item in items)
    for child in workers:
        await set_.processes.stop(child)
    turns = [json.loads(line) for line in record.read_text().splitlines()]
    return summarise(variant, turns, Outage(from_ms, to_ms), dead, verdicts)


async def _watch(set_: Rig, plan: DrillPlan) -> Verdicts:
    """Poll the primary's state: when it stopped being used, and when it was whole again."""
    begun = time.monotonic()
    verdict_s = recovery_s = None
    while time.monotonic() - begun < plan.outage_s + plan.recover_s:
        state = await _state(set_)
        elapsed = time.monotonic() - begun
        if verdict_s is None and state in {"unhealthy", "limited", "probing"}:
            verdict_s = elapsed
        if state == "healthy" and elapsed > plan.outage_s:
            recovery_s = elapsed - plan.outage_s
            break
        await asyncio.sleep(POLL_S)
    return Verdicts(verdict_s, recovery_s)


async def _settle(plan: DrillPlan) -> Verdicts:
    """Without a supervisor there is no verdict to wait for: let turns that began in the outage end."""
    await asyncio.sleep(min(plan.recover_s, 40.0))
    return Verdicts()


async def _state(set_: Rig) -> str:
    for item in (await set_.get("/v1/targets"))["items"]:
        if item["id"] == PRIMARY_ID:
            return str(item["state"])
    return ""


async def _has_turns(record: Any, worker: str) -> bool:
    return f'"worker": "{worker}"' in record.read_text()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
