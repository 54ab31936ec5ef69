"""From a request to the first model that really answers: deadlines, verdicts, retries, one hedge.

Whatever ends the race, every attempt has been told how it ended and every losing stream is being closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from livekit.agents import llm

from supervisor.core.decide import Decision, GiveUp, Retry, TryNext
from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.llm_relay import Relay, Runner, tool_growth
from worker.guard.names import Child, provider_of
from worker.guard.routing import Attempt, Guard, HedgeBudget, Turn

Open = Callable[[Child[llm.LLM[Any]], Attempt[llm.LLM[Any]]], llm.LLMStream]


class Race:
    """One race of one turn. `run` gives the runner that answers (it goes on reading and forwarding), or None.

    A runner that is writing a tool call wins before its first chunk. expects_usage: targets known to send usage.
    """

    def __init__(
        self,
        guard: Guard[llm.LLM[Any]],
        turn: Turn[llm.LLM[Any]],
        open_stream: Open,
        relay: Callable[[], Relay],
        *,
        hedges: HedgeBudget,
        expects_usage: Mapping[str, bool],
    ) -> None:
        self._guard = guard
        self._turn = turn
        self._open_stream = open_stream
        self._relay = relay
        self._hedges = hedges
        self._expects_usage = expects_usage
        self._runners: list[Runner] = []
        self._hedged = self._refused = False
        self._winner: Runner | None = None

    async def run(self, decision: Decision | None = None) -> Runner | None:
        """Race until somebody answers or `decide` gives up (then the turn's newest fault says why)."""
        try:
            while True:
                if not self._runners and not await self._go(decision or self._turn.next()):
                    return None
                decision = None
                await self._wait()
                self._look()
                if self._winner is not None:
                    self._runners.remove(self._winner)
                    return self._winner
        finally:
            # After a win these are the losers; otherwise the caller has gone.
            for runner in list(self._runners):
                self._drop(runner)

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
        self._runners.append(Runner(attempt, stream, self._claim))

    async def _wait(self) -> None:
        if not self._runners:
            return
        now = self._guard.clock()
        until = min(runner.attempt.deadline_mono for runner in self._runners)
        hedge_at = self._hedge_at()
        if hedge_at is not None:
            until = min(until, hedge_at)
        waits: set[asyncio.Future[Any]] = {runner.woke for runner in self._runners}
        waits.update(runner.attempt.verdict() for runner in self._runners)
        await asyncio.wait(waits, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED)
        if hedge_at is not None and self._guard.clock() >= hedge_at:
            self._hedge()

    def _hedge_at(self) -> float | None:
        if self._hedged or len(self._runners) != 1:
            return None
        return self._turn.hedge_at_mono(self._runners[0].attempt, refused=self._refused)

    def _hedge(self) -> None:
        """Start the next one beside the one that is late; once more where there was no budget for it."""
        if self._runners[0].woke.done():
            self._hedged = True
            return
        child = self._turn.hedge(self._runners[0].attempt, self._hedges)
        self._hedged = self._refused or child is not None
        self._refused = True
        if child is not None:
            self._open(child, hedge=True)

    def _claim(self, runner: Runner) -> Relay | None:
        """The first one to ask has won."""
        if self._winner is not None or runner not in self._runners:
            return None
        self._winner = runner
        return self._relay()

    def _look(self) -> None:
        """Runners that failed, are late or lost their target are gone after this."""
        now = self._guard.clock()
        for runner in list(self._runners):
            if runner is self._winner:
                continue
            attempt = runner.attempt
            if runner.woke.done():
                if self._winner is None:
                    self._ended(runner)
            elif attempt.verdict().done():
                self._drop(runner)
            elif now >= attempt.deadline_mono and self._winner is None:
                if tool_growth(runner.stream):
                    self._winner = runner
                    runner.start_relay(self._relay())
                else:
                    self._fail(runner, Fault(FaultKind.FIRST_OUTPUT_TIMEOUT, phase=Phase.FIRST_OUTPUT))

    def _ended(self, runner: Runner) -> None:
        """It has ended without any output."""
        expects = self._expects_usage.get(runner.attempt.child.target, False)
        fault = runner.ended(expects_usage=expects) or Fault(FaultKind.EMPTY)
        if fault.kind is FaultKind.EMPTY and not (relay := self._relay()).blank:
            self._winner = runner
            runner.adds_nothing(relay)
            return
        self._fail(runner, fault)

    def _fail(self, runner: Runner, fault: Fault) -> None:
        self._runners.remove(runner)
        self._turn.fail(runner.attempt, fault)
        runner.drop()
        self._guard.keep(runner.close())

    def _drop(self, runner: Runner) -> None:
        self._runners.remove(runner)
        runner.attempt.abandoned()
        runner.drop()
        self._guard.keep(runner.close())
