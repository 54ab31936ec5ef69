"""From a request to the first model that really answers: deadlines, verdicts, retries, one hedge.

Whatever ends the race, every attempt has been told how it ended and every losing stream is being closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from livekit.agents import llm

from supervisor.core.decide import Decision, GiveUp, Retry, TryNext
from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import Child, provider_of
from worker.guard.routing import Attempt, Guard, HedgeBudget, Turn

Open = Callable[[Child[llm.LLM[Any]], Attempt[llm.LLM[Any]]], llm.LLMStream]


def tool_growth(stream: llm.LLMStream) -> int:
    """How much of a tool call has come in that the plugin does not show yet (0: none is being written).

    A call is shown only when it is whole; until then its arguments would look like silence. Read from the
    OpenAI-compatible streams; other plugins show no growth and are measured by their chunks alone.
    """
    inner = cast("Any", stream)
    if getattr(inner, "_tool_call_id", None) is None and getattr(inner, "_fnc_name", None) is None:
        return 0
    return 1 + len(getattr(inner, "_fnc_raw_arguments", None) or "")


class Runner:
    """One child's stream while it is being read."""

    __slots__ = ("attempt", "chunk", "early", "hedge", "pull", "stream", "usage")

    def __init__(self, attempt: Attempt[llm.LLM[Any]], stream: llm.LLMStream, *, hedge: bool) -> None:
        self.attempt = attempt
        self.stream = stream
        self.hedge = hedge
        self.chunk: llm.ChatChunk | None = None
        self.early: list[llm.ChatChunk] = []
        self.usage: llm.CompletionUsage | None = None
        self.pull = self._pull()

    def again(self) -> None:
        """Ask for the next chunk."""
        self.pull = self._pull()

    async def close(self) -> None:
        """End the request; to be run in a kept task."""
        await self.stream.aclose()
        await asyncio.wait({self.pull})

    def _pull(self) -> asyncio.Task[llm.ChatChunk | None]:
        task = asyncio.ensure_future(self._next())
        task.add_done_callback(_seen)
        return task

    async def _next(self) -> llm.ChatChunk | None:
        try:
            return await self.stream.__anext__()
        except StopAsyncIteration:
            return None


class Race:
    """One race of one turn. `run` gives the runner whose first output is in `runner.chunk`, or None.

    A runner that is writing a tool call wins without a chunk. `expects_usage`: targets known to send usage.
    """

    def __init__(
        self,
        guard: Guard[llm.LLM[Any]],
        turn: Turn[llm.LLM[Any]],
        open_stream: Open,
        *,
        hedges: HedgeBudget,
        expects_usage: Mapping[str, bool],
    ) -> None:
        self._guard = guard
        self._turn = turn
        self._open_stream = open_stream
        self._hedges = hedges
        self._expects_usage = expects_usage
        self._runners: list[Runner] = []
        self._hedged = False

    async def run(self, decision: Decision | None = None) -> Runner | None:
        """Race until somebody answers or `decide` gives up (then the turn's newest fault says why)."""
        try:
            while True:
                if not self._runners and not await self._go(decision or self._turn.next()):
                    return None
                decision = None
                await self._wait()
                winner = self._look()
                if winner is not None:
                    self._runners.remove(winner)
                    return winner
        finally:
            for runner in self._runners:
                self._drop(runner)
            self._runners.clear()

    async def _go(self, decision: Decision) -> bool:
        match decision:
            case GiveUp():
                return False
            case Retry(_, sleep_ms):
                await asyncio.sleep(sleep_ms / 1000)
            case TryNext():
                pass
        self._open(self._turn.child(decision), hedge=False)
        return True

    def _open(self, child: Child[llm.LLM[Any]], *, hedge: bool) -> None:
        if not hedge:
            self._hedges.attempt()
        attempt = self._turn.begin(child)
        try:
            stream = self._open_stream(child, attempt)
        except Exception as exc:  # noqa: BLE001 - a plugin that fails in chat() is a failed attempt like any other
            self._turn.fail(attempt, fault_of(exc, provider_of(child.plugin), Phase.CONNECT))
            return
        self._runners.append(Runner(attempt, stream, hedge=hedge))

    async def _wait(self) -> None:
        if not self._runners:
            return
        now = self._guard.clock()
        until = min(runner.attempt.deadline_mono for runner in self._runners)
        hedge_at = self._hedge_at()
        if hedge_at is not None:
            until = min(until, hedge_at)
        waits: set[asyncio.Future[Any]] = {runner.pull for runner in self._runners}
        waits.update(runner.attempt.verdict() for runner in self._runners)
        await asyncio.wait(waits, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED)
        if hedge_at is not None and self._guard.clock() >= hedge_at:
            self._hedge()

    def _hedge_at(self) -> float | None:
        if self._hedged or len(self._runners) != 1 or not self._guard.options.hedge:
            return None
        attempt = self._runners[0].attempt
        delay_ms = attempt.snapshot.hedge_ms
        return attempt.started_mono + delay_ms / 1000 if delay_ms and not attempt.snapshot.panic else None

    def _hedge(self) -> None:
        """Start the next one beside the one that is late; asked for once a race, whatever comes of it."""
        self._hedged = True
        if self._runners[0].pull.done():
            return
        child = self._turn.untried()
        if child is None or self._turn.budget_left_ms <= 0 or not self._hedges.take(self._guard.clock()):
            return
        self._open(child, hedge=True)

    def _look(self) -> Runner | None:
        """The first runner with output; runners that failed, are late or lost their target are gone after this."""
        now = self._guard.clock()
        for runner in list(self._runners):
            attempt = runner.attempt
            if runner.pull.done():
                if self._take(runner):
                    return runner
            elif attempt.verdict().done():
                self._runners.remove(runner)
                self._drop(runner)
            elif now >= attempt.deadline_mono:
                if tool_growth(runner.stream):
                    attempt.first_output()
                    return runner
                self._fail(runner, Fault(FaultKind.FIRST_OUTPUT_TIMEOUT, phase=Phase.FIRST_OUTPUT))
        return None

    def _take(self, runner: Runner) -> bool:
        """Look at what a pull brought; True when it is the first output."""
        attempt = runner.attempt
        exc = runner.pull.exception()
        if exc is not None:
            self._fail(runner, fault_of(exc, provider_of(attempt.child.plugin), attempt.phase))
            return False
        chunk = runner.pull.result()
        if chunk is None:
            # A good end without a word: with the usage missing where it always comes, the answer was cut off.
            cut = runner.usage is None and self._expects_usage.get(attempt.child.target, False)
            self._fail(runner, Fault(FaultKind.CUT if cut else FaultKind.EMPTY, phase=Phase.FIRST_OUTPUT))
            return False
        attempt.connected()
        if chunk.usage is not None:
            runner.usage = chunk.usage
        delta = chunk.delta
        if delta is not None and (delta.tool_calls or (delta.content and not delta.content.isspace())):
            attempt.first_output()
            runner.chunk = chunk
            return True
        runner.early.append(chunk)
        runner.again()
        return False

    def _fail(self, runner: Runner, fault: Fault) -> None:
        self._runners.remove(runner)
        self._turn.fail(runner.attempt, fault)
        self._guard.keep(runner.close())

    def _drop(self, runner: Runner) -> None:
        runner.attempt.abandoned()
        self._guard.keep(runner.close())


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody may be left to look at a loser's exception."""
    if not task.cancelled():
        task.exception()
