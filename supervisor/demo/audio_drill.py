"""`supervisor drill --audio`: what callers hear when a service fails, for three variants of the same agent.

One set of processes a variant; one case after the other (role by fault), each in waves of fresh calls: an answered
turn each with every target healthy, the fault for a while, mended, answered again. Callers are real audio sessions in
real job processes; what they heard is decoded from the sound.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.cli.output import counted
from supervisor.demo.audio_stats import Line, dead_air, healthy_turns, summarise, turns_in
from supervisor.demo.drill_stats import Outage
from supervisor.demo.processes import Child, StartFailed
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
    "dead": {"fault": "status", "status": 500},
    "dead-hang": {"fault": "hang"},
}
# Faults that befall both providers of the role; the others only its first one.
OF_BOTH = {"dead", "dead-hang"}
# What a role cannot do: an LLM has no silence, a recogniser no empty audio.
NOT_FOR = {"llm": {"silent"}, "stt": {"empty"}, "tts": set[str]()}
START_TIMEOUT_S = 150.0
SETTLE_TIMEOUT_S = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AudioPlan:
    """calls: in a wave, spread over `workers`. rounds: how often each case is repeated. Durations in seconds.

    baseline_s: without a fault at the very beginning, to compare with; healthy_s: before each fault.
    """

    cases: Sequence[tuple[str, str]]
    variants: Sequence[str] = VARIANTS
    calls: int = 16
    rounds: int = 1
    workers: int = 2
    baseline_s: float = 20.0
    healthy_s: float = 4.0
    outage_s: float = 20.0
    report: Path | None = None


@dataclass(slots=True)
class AudioResult:
    """rows: one a variant and case. healthy: dead air without a fault, by variant. timelines: for the pictures."""

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
        say(
            f"{variant}: {counted(len(plan.cases), 'case')}, {plan.rounds} x {plan.calls} calls each, "
            f"in {plan.workers} workers"
        )
        async with rig() as set_:
            await _Variant(plan, variant, set_, say, result).run()
    return result


class _Variant:
    def __init__(self, plan: AudioPlan, variant: str, set_: Rig, say: Progress, result: AudioResult) -> None:
        self._plan, self._variant, self._set, self._say, self._result = plan, variant, set_, say, result
        self._record = set_.folder / "callers.jsonl"
        self._waves = 0
        self._seen: list[Line] = []
        self._read_to = 0

    async def run(self) -> None:
        outages: list[Outage] = []
        for role, fault in self._plan.cases:
            mine = [await self._wave(role, fault) for _ in range(self._plan.rounds)]
            outages += mine
            lines = self._lines()
            row = summarise(self._variant, role, fault, lines, mine)
            self._result.rows.append(row)
            self._result.timelines += timelines(self._variant, role, fault, lines, mine)
            self._say(f"{self._variant}: {in_words(row)}")
        self._result.healthy[self._variant] = dead_air(healthy_turns(self._lines(), outages))

    async def _wave(self, role: str, fault: str) -> Outage:
        """Fresh calls, one answered turn each, the fault, mended, answered again; then everybody hangs up."""
        first = self._waves == 0
        workers = await self._start()
        await asyncio.sleep(self._plan.baseline_s if first else self._plan.healthy_s)
        providers = PROVIDERS[role] if fault in OF_BOTH else PROVIDERS[role][:1]
        for provider in providers:
            await self._set.set_fault(role, provider, None, FAULTS[fault])
        from_ms = _now_ms()
        await asyncio.sleep(self._plan.outage_s)
        to_ms = _now_ms()
        for provider in providers:
            await self._set.set_fault(role, provider, None, {"fault": "ok"})
        await self._until(
            lambda lines: len(_answered_since(lines, to_ms)) >= self._plan.calls, SETTLE_TIMEOUT_S, must=False
        )
        if role == "tts":
            # A call keeps its voice: the next ones must find the first one healthy when they begin.
            await self._whole()
        await asyncio.gather(*(self._set.processes.stop(worker) for worker in workers))
        return Outage(from_ms, to_ms)

    async def _start(self) -> list[Child]:
        plan, began = self._plan, _now_ms()
        self._waves += 1
        workers: list[Child] = []
        for n in range(plan.workers):
            share = plan.calls // plan.workers + (n < plan.calls % plan.workers)
            name = f"worker-{self._waves}-{n + 1}"
            env = self._set.worker_environment(name) | {
                "WORKER_CALLERS_RECORD": str(self._record),
                "WORKER_GUARD": str(self._variant == "guarded").lower(),
            }
            argv = ["worker", "start", "--agent", f"worker.drill.agents:{self._variant}", "--local-callers"]
            workers.append(await self._set.processes.start(name, [*argv, str(share)], env))
        await self._until(lambda lines: len(_answered_since(lines, began)) >= plan.calls, START_TIMEOUT_S)
        await self._whole()
        return workers

    async def _whole(self) -> None:
        """The supervisor holds every target for healthy again."""
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
        """All whole lines so far; only what is new is read."""
        if self._record.exists():
            with self._record.open("rb") as file:
                file.seek(self._read_to)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read_to += len(whole) + len(newline)
            self._seen += [json.loads(line) for line in whole.splitlines()]
        return self._seen


def in_words(row: Mapping[str, Any]) -> str:
    """One row as a line."""
    air = row["dead_air_s"]
    late = row["fault_late"]
    speaking = (
        f" ({late['turns']} while speaking: p95 {late['p95']} s, max {late['max']} s)"
        if late["turns"]
        else ""
    )
    return (
        f"{row['role']} {row['fault']}: {row['calls']} calls, {row['turns']} turns, {row['answered']} answered, "
        f"{row['apologies']} apologies, {row['silent']} silent, {row['misheard']} misheard; "
        f"dead air p95 {air['p95']} s, max {air['max']} s{speaking}; words: "
        f"{row['words_lost']} lost, {row['words_twice']} twice; {row['closed']} closed"
    )


def _answered_since(lines: Sequence[Line], at_ms: int) -> set[str]:
    return {
        t["caller"] for t in lines
        if t["event"] == "turn" and t["speech_end_at"] >= at_ms and not t["silent"] and t["lost"] < t["expected"]
    }  # fmt: skip


def timelines(
    variant: str, role: str, fault: str, lines: Sequence[Line], outages: Sequence[Outage]
) -> list[dict[str, Any]]:
    """What the report draws: a picture of each round. Pure."""
    found = [_timeline(variant, role, fault, lines, outage) for outage in outages]
    return [{**timeline, "round": n} for n, timeline in enumerate(found, 1)]


def _timeline(variant: str, role: str, fault: str, lines: Sequence[Line], outage: Outage) -> dict[str, Any]:
    """What the report's picture needs: the turns around the outage, with times relative to its beginning."""
    around = Outage(outage.from_ms - 12_000, outage.to_ms + 12_000)
    keep = ("caller", "speech_end_at", "speech_s", "dead_air_s", "answer_s", "silent")
    counts = ("said", "expected", "lost", "twice", "other", "stt_lost")
    turns: list[Mapping[str, Any]] = [{k: t[k] for k in (*keep, *counts)} for t in turns_in(lines, around)]
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
