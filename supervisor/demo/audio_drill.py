"""`supervisor drill --audio`: what callers hear when a service fails, for three variants of the same agent.

One set of processes a variant; one case after the other (role by fault), each in rounds: healthy turns, the fault
for a while, mended, and whole again before the next. Callers are real audio sessions in real job processes; what
they heard is decoded from the sound.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.demo.audio_stats import Line, dead_air, summarise, turns_in
from supervisor.demo.drill_stats import Outage
from supervisor.demo.processes import StartFailed
from supervisor.demo.rig import Rig, rig

VARIANTS = ("plain", "upstream", "guarded")
ROLES = ("llm", "tts", "stt")
PROVIDERS = {"llm": ("groq", "openai"), "tts": ("cartesia", "groq"), "stt": ("cartesia", "groq")}
FAULTS: dict[str, dict[str, Any]] = {
    "hang": {"fault": "hang"},
    "slow": {"fault": "slow", "delay_s": 20},
    "cut": {"fault": "cut", "after_chunks": 3},
    "429": {"fault": "status", "status": 429, "retry_after": 10},
    "500": {"fault": "status", "status": 500},
    "401": {"fault": "status", "status": 401},
    "silent": {"fault": "silent"},
    "empty": {"fault": "empty"},
    "refuse": {"fault": "refuse"},
    "dead": {"fault": "status", "status": 500},  # both providers of the role
}
# What a role cannot do: an LLM has no silence, a recogniser no empty audio.
NOT_FOR = {"llm": {"silent"}, "stt": {"empty"}, "tts": set[str]()}
START_TIMEOUT_S = 150.0
SETTLE_TIMEOUT_S = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AudioPlan:
    """calls: in a wave, spread over `workers`. rounds: how often each case is repeated. Durations in seconds."""

    cases: Sequence[tuple[str, str]]
    variants: Sequence[str] = VARIANTS
    calls: int = 16
    rounds: int = 1
    workers: int = 2
    outage_s: float = 20.0
    report: Path | None = None


@dataclass(slots=True)
class AudioResult:
    """rows: one a variant and case. healthy: dead air without a fault, by variant. lines: all that was recorded."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    healthy: dict[str, dict[str, float | None]] = field(default_factory=dict[str, dict[str, float | None]])
    timelines: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def cases(roles: Sequence[str], faults: Sequence[str]) -> list[tuple[str, str]]:
    """Every combination that makes sense."""
    return [(role, fault) for role in roles for fault in faults if fault not in NOT_FOR[role]]


async def run_audio_drill(plan: AudioPlan, say: Progress) -> AudioResult:
    """The whole drill. Raises `StartFailed`."""
    result = AudioResult()
    for variant in plan.variants:
        say(f"{variant}: starting {plan.calls} calls in {plan.workers} workers")
        async with rig() as set_:
            await _Variant(plan, variant, set_, say, result).run()
    return result


class _Variant:
    def __init__(self, plan: AudioPlan, variant: str, set_: Rig, say: Progress, result: AudioResult) -> None:
        self._plan, self._variant, self._set, self._say, self._result = plan, variant, set_, say, result
        self._record = set_.folder / "callers.jsonl"

    async def run(self) -> None:
        await self._start()
        began = _now_ms()
        await self._until(
            lambda lines: len(turns_in(lines, Outage(began, _now_ms()))) >= 2 * self._plan.calls,
            SETTLE_TIMEOUT_S,
        )
        healthy = turns_in(self._lines(), Outage(began, _now_ms()))
        self._result.healthy[self._variant] = dead_air(healthy)
        for role, fault in self._plan.cases:
            outages = [await self._round(role, fault) for _ in range(self._plan.rounds)]
            lines = self._lines()
            row = summarise(self._variant, role, fault, lines, outages)
            self._result.rows.append(row)
            self._result.timelines += [_timeline(self._variant, role, fault, lines, o) for o in outages[:1]]
            self._say(f"{self._variant}: {in_words(row)}")

    async def _start(self) -> None:
        plan = self._plan
        for n in range(plan.workers):
            share = plan.calls // plan.workers + (n < plan.calls % plan.workers)
            env = self._set.worker_environment(f"worker-{n + 1}") | {
                "WORKER_CALLERS_RECORD": str(self._record),
                "WORKER_GUARD": str(self._variant == "guarded").lower(),
            }
            argv = [
                "worker",
                "start",
                "--agent",
                f"worker.drill.agents:{self._variant}",
                "--local-callers",
                str(share),
            ]
            await self._set.processes.start(f"worker-{n + 1}", argv, env)
        await self._until(
            lambda lines: len({t["caller"] for t in lines if t["event"] == "turn"}) >= plan.calls,
            START_TIMEOUT_S,
        )

    async def _round(self, role: str, fault: str) -> Outage:
        providers = PROVIDERS[role] if fault == "dead" else PROVIDERS[role][:1]
        for provider in providers:
            await self._set.set_fault(role, provider, None, FAULTS[fault])
        from_ms = _now_ms()
        await asyncio.sleep(self._plan.outage_s)
        to_ms = _now_ms()
        for provider in providers:
            await self._set.set_fault(role, provider, None, {"fault": "ok"})
        await self._settle(to_ms)
        return Outage(from_ms, to_ms)

    async def _settle(self, mended_ms: int) -> None:
        """Everybody who speaks is answered again, and the supervisor holds every target for healthy."""
        await self._until(
            lambda lines: len(_answered_since(lines, mended_ms)) >= self._plan.calls,
            SETTLE_TIMEOUT_S,
            must=False,
        )
        if self._variant != "guarded":
            return
        end = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < end:
            items = (await self._set.get("/v1/targets"))["items"]
            if all(item["state"] == "healthy" for item in items):
                return
            await asyncio.sleep(0.5)
        self._say(f"{self._variant}: not everything is healthy {SETTLE_TIMEOUT_S:.0f} s after it was mended")

    async def _until(
        self, done: Callable[[list[Line]], bool], timeout_s: float, *, must: bool = True
    ) -> None:
        end = time.monotonic() + timeout_s
        while not done(self._lines()):
            if (dead := self._set.processes.dead()) is not None:
                raise StartFailed(f"{dead.name} ended by itself:\n{dead.tail()}")
            if time.monotonic() > end:
                if must:
                    raise StartFailed(
                        f"{self._variant}: the callers were not answered within {timeout_s:.0f} s"
                    )
                return
            await asyncio.sleep(0.5)

    def _lines(self) -> list[Line]:
        if not self._record.exists():
            return []
        whole, _, _ = self._record.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]


def in_words(row: Mapping[str, Any]) -> str:
    """One row as a line."""
    air = row["dead_air_s"]
    return (
        f"{row['role']} {row['fault']}: {row['turns']} turns, {row['answered']} answered, "
        f"{row['apologies']} apologies, {row['silent']} silent, {row['misheard']} misheard; "
        f"dead air p95 {air['p95']} s, max {air['max']} s; words: "
        f"{row['words_lost']} lost, {row['words_twice']} twice; {row['closed']} closed"
    )


def _answered_since(lines: Sequence[Line], at_ms: int) -> set[str]:
    return {
        t["caller"] for t in lines
        if t["event"] == "turn" and t["speech_end_at"] >= at_ms and not t["silent"] and t["lost"] < t["expected"]
    }  # fmt: skip


def _timeline(variant: str, role: str, fault: str, lines: Sequence[Line], outage: Outage) -> dict[str, Any]:
    """What the report's picture needs: the turns around the outage, with times relative to its beginning."""
    around = Outage(outage.from_ms - 12_000, outage.to_ms + 12_000)
    keep = (
        "caller",
        "speech_end_at",
        "speech_s",
        "dead_air_s",
        "answer_s",
        "silent",
        "lost",
        "expected",
        "twice",
    )
    turns: list[Mapping[str, Any]] = [{k: t[k] for k in keep} for t in turns_in(lines, around)]
    return {
        "variant": variant,
        "role": role,
        "fault": fault,
        "from_ms": outage.from_ms,
        "to_ms": outage.to_ms,
        "turns": turns,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
