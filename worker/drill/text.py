"""Text sessions for the drill: `python -m worker.drill.text`. Started by `supervisor drill`, one process a worker.

Every session is a real AgentSession with real plugins; what stands in is only the provider behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from livekit.agents import Agent, AgentSession
from livekit.agents import llm as lk_llm
from livekit.agents.voice.io import TextOutput

from worker.drill.records import RecordFile, TurnRecord, compare
from worker.drill.variants import Variant, VariantBuilder
from worker.simulator.answers import answer_for

TURN_LIMIT_S = 60.0


class _Heard(TextOutput):
    """What the user of a text session sees, with the time of the first word."""

    def __init__(self) -> None:
        super().__init__(label="drill", next_in_chain=None)
        self.text = ""
        self.first_mono: float | None = None

    async def capture_text(self, text: str) -> None:
        if self.first_mono is None and text.strip():
            self.first_mono = time.monotonic()
        self.text += text

    def flush(self) -> None:
        self.text += " "

    def reset(self) -> None:
        self.text, self.first_mono = "", None


class TextCaller:
    """One session that asks a question every `every_s` seconds and compares the answer word by word."""

    def __init__(
        self,
        name: str,
        build: Callable[[], lk_llm.LLM[Any]],
        guard: Callable[[AgentSession[Any]], None],
        records: RecordFile,
        worker: str,
    ) -> None:
        self.name = name
        self._build, self._guard, self._records, self._worker = build, guard, records, worker

    async def run(self, start_in_s: float, every_s: float, stop: asyncio.Event) -> None:
        if await _stopped_within(stop, start_in_s):
            return
        heard = _Heard()
        closed = asyncio.Event()
        session: AgentSession[Any] = AgentSession(llm=self._build())
        session.on("close", lambda _: closed.set())  # pyright: ignore[reportUnknownMemberType, reportUnknownLambdaType]  # untyped emitter
        self._guard(session)
        session.output.transcription = heard
        await cast("Any", session).start(Agent(instructions="Answer in one or two sentences."))
        turn, due = 0, time.monotonic()
        try:
            while not closed.is_set() and not await _stopped_within(stop, max(0.0, due - time.monotonic())):
                turn += 1
                due = max(due + every_s, time.monotonic())
                await self._take_turn(session, heard, closed, turn)
        finally:
            with contextlib.suppress(Exception):
                await session.aclose()

    async def _take_turn(
        self, session: AgentSession[Any], heard: _Heard, closed: asyncio.Event, turn: int
    ) -> None:
        heard.reset()
        question = f"Please answer question {turn} of {self.name}."
        at_ms, begun = time.time_ns() // 1_000_000, time.monotonic()
        with contextlib.suppress(Exception):  # how a turn fails is what is measured below
            async with asyncio.timeout(TURN_LIMIT_S):
                await session.run(user_input=question)
        words, answer = heard.text.split(), answer_for(question).split()
        got, twice, other = compare(answer, words)
        first = None if heard.first_mono is None else heard.first_mono - begun
        self._records.write(
            TurnRecord(
                worker=self._worker, session=self.name, turn=turn, at_ms=at_ms, first_s=first,
                total_s=time.monotonic() - begun, expected=len(answer), got=got, twice=twice,
                apologised=other, closed=closed.is_set(),
            )
        )  # fmt: skip


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return stop.is_set()


async def run(
    variant: Variant, simulator: str, sessions: int, worker: str, record: Path, every_s: float
) -> None:
    """Hold `sessions` sessions until SIGTERM."""
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    records = RecordFile(record)
    async with VariantBuilder(variant, simulator, worker) as builder:
        callers = [
            TextCaller(
                f"{worker}-{n}", lambda n=n: builder.llm(f"{worker}-{n}"), builder.guard, records, worker
            )
            for n in range(sessions)
        ]
        await asyncio.gather(*(c.run(every_s * n / sessions, every_s, stop) for n, c in enumerate(callers)))
    records.close()


def main(
    variant: Annotated[Literal["plain", "upstream", "guarded"], typer.Option()],
    simulator: Annotated[str, typer.Option(help="URL of the stand-ins")],
    record: Annotated[Path, typer.Option(help="file that gets one line of JSON a turn")],
    sessions: Annotated[int, typer.Option(min=1)] = 10,
    worker: Annotated[str, typer.Option()] = "drill-1",
    every: Annotated[float, typer.Option(min=0.1, help="seconds from turn to turn")] = 4.0,
) -> None:
    """Run text sessions against the stand-ins until SIGTERM (used by `supervisor drill`)."""
    asyncio.run(run(variant, simulator, sessions, worker, record, every))


if __name__ == "__main__":
    typer.run(main)
