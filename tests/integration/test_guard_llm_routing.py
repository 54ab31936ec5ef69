"""GuardedLLM over the real plugins: verdicts, hedges, tool calls, hang-ups and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import APIError, function_tool

from supervisor.wire.vocabulary import FaultKind, State
from tests.support.guarded_llm import FIRST, QUESTION, SECOND, benched
from tests.support.waiting import wait_until
from worker.guard.routing import GuardOptions, HedgeBudget
from worker.simulator.answers import answer_for
from worker.simulator.stand import Options


async def test_a_condemned_target_is_not_asked() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, state=State.UNHEALTHY, admit=0.0, rank=1)
        bench.link.rule(SECOND, rank=0)
        await bench.ask()
        assert bench.link.ends() == [(SECOND, "ok")]
        assert bench.asked("groq") == 0


async def test_a_verdict_in_mid_wait_moves_on_at_once() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, first_output_ms=60_000)
        bench.sim.set_fault("llm", "groq", "hang")
        asking = asyncio.ensure_future(bench.ask())
        await wait_until(lambda: bench.asked("groq"), "the hanging request")
        bench.link.rule(FIRST, state=State.UNHEALTHY, admit=0.0)
        reply = await asyncio.wait_for(asking, 20)
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, "abandoned"), (SECOND, "ok")]


async def test_a_verdict_without_an_alternative_lets_it_wait() -> None:
    async with benched(children=1) as bench:
        bench.link.rule(FIRST, first_output_ms=5_000)
        bench.sim.set_fault("llm", "groq", "slow", delay_s=0.3)
        asking = asyncio.ensure_future(bench.ask())
        await wait_until(lambda: bench.asked("groq"), "the slow request")
        bench.link.rule(FIRST, state=State.UNHEALTHY, admit=0.0)
        assert (await asking).text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, "ok")]


async def test_a_late_model_is_hedged_and_the_first_answer_wins() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, hedge_ms=80, first_output_ms=60_000)
        bench.sim.set_fault("llm", "groq", "slow", delay_s=30)
        reply = await asyncio.wait_for(bench.ask(), 20)
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, "abandoned"), (SECOND, "ok")]


class Held:
    """A plugin's stream whose first output waits for a gate."""

    def __init__(self, stream: Any, gate: asyncio.Event, change: Callable[[str], str]) -> None:
        self._stream, self._gate, self._change = stream, gate, change
        self.waits = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Held:
        return self

    async def __anext__(self) -> Any:
        chunk = await self._stream.__anext__()
        if chunk.delta is not None and chunk.delta.content:
            self.waits = True
            await self._gate.wait()
            chunk.delta.content = self._change(chunk.delta.content)
        return chunk


async def test_of_two_that_answer_at_the_same_moment_one_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, held = asyncio.Event(), list[Held]()
    async with benched() as bench:
        for child, change in zip(bench.guarded.guard.children, (str.upper, str.lower), strict=True):

            def chat(opens: Any = child.plugin.chat, change: Any = change, **given: Any) -> Held:
                held.append(Held(opens(**given), gate, change))
                return held[-1]

            monkeypatch.setattr(child.plugin, "chat", chat)
        bench.link.rule(FIRST, hedge_ms=80, first_output_ms=60_000)
        bench.link.rule(SECOND, first_output_ms=60_000)
        asking = asyncio.ensure_future(bench.ask())
        await wait_until(lambda: [stream.waits for stream in held] == [True, True], "both would answer")
        gate.set()
        text = (await asking).text
        assert text in {answer_for(QUESTION).upper(), answer_for(QUESTION).lower()}
        assert sorted(end for _, end in bench.link.ends()) == ["abandoned", "ok"]


async def test_a_hedge_that_fails_leaves_the_first_its_time() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, hedge_ms=80, first_output_ms=60_000)
        bench.sim.set_fault("llm", "groq", "slow", delay_s=2.0)
        bench.sim.set_fault("llm", "openai", "status", status=503)
        reply = await asyncio.wait_for(bench.ask(), 20)
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, "ok"), (SECOND, "overloaded")]


def spent() -> HedgeBudget:
    """A budget with nothing in it for the time of a test."""
    hedges = HedgeBudget(every_s=3600.0)
    assert hedges.take(time.monotonic())
    return hedges


async def test_hedges_have_a_budget() -> None:
    async with benched(hedges=spent()) as bench:
        bench.link.rule(FIRST, hedge_ms=40, first_output_ms=60_000)
        bench.sim.set_fault("llm", "groq", "slow", delay_s=0.4)
        for _ in range(2):
            await bench.ask()
        assert bench.link.ends() == [(FIRST, "ok")] * 2


async def test_with_much_of_the_turns_budget_gone_no_budget_of_hedges_is_needed() -> None:
    async with benched(hedges=spent(), options=GuardOptions(latency_budget_ms=1_000)) as bench:
        bench.link.rule(FIRST, hedge_ms=40, first_output_ms=60_000)
        bench.sim.set_fault("llm", "groq", "hang")
        began = time.monotonic()
        await asyncio.wait_for(bench.ask(), 30)
        assert time.monotonic() - began >= 0.4, "two fifths of it are for the first one alone"
        assert bench.link.ends() == [(FIRST, "abandoned"), (SECOND, "ok")]


async def test_a_call_that_waited_in_vain_moves_on_sooner_whatever_the_budget() -> None:
    async with benched(hedges=spent()) as bench:
        bench.link.rule(FIRST, hedge_ms=40, first_output_ms=400)
        bench.sim.set_fault("llm", "groq", "hang")
        await bench.ask()
        assert bench.link.ends() == [(FIRST, "first_output_timeout"), (SECOND, "ok")], "its whole deadline"
        bench.link.rule(FIRST, first_output_ms=60_000)
        for _ in range(2):
            await asyncio.wait_for(bench.ask(), 30)
        assert bench.link.ends()[2:] == [(FIRST, "abandoned"), (SECOND, "ok")] * 2, "no longer than usual"
        bench.sim.clear_faults()
        bench.link.rule(FIRST, hedge_ms=30_000, first_output_ms=60_000)
        await bench.ask()
        assert not bench.guarded.guard.is_late(FIRST), "it answers again"


async def test_no_hedge_in_time() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, hedge_ms=5_000)
        await bench.ask()
        assert bench.asked("openai") == 0


@function_tool
async def look_up(place: str) -> str:
    """Look something up."""
    return place


async def test_a_tool_call_comes_whole_and_once() -> None:
    async with benched() as bench:
        reply = await bench.ask("Please use tool look_up.", tools=[look_up])
        assert reply.calls == [("look_up", '{"place": "amber"}')]
        assert reply.text == ""
        assert bench.link.ends() == [(FIRST, "ok")]


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("clean", [True, False])
async def test_half_a_tool_call_is_never_run(after: int, clean: bool) -> None:
    async with benched() as bench:
        await bench.ask("Warm up, please.")
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=after, clean=clean)
        bench.link.attempts.clear()
        reply = await bench.ask("Please use tool look_up.", tools=[look_up])
        assert reply.calls == [("look_up", '{"place": "amber"}')], "from the second model, once"
        (first, kind), second = bench.link.ends()
        assert (first, second) == (FIRST, (SECOND, "ok"))
        assert kind in {"cut", "connect"}


async def test_a_call_that_nobody_makes_is_no_end_of_an_answer() -> None:
    question = "Talk and use tool look_up."
    async with benched() as bench:
        await bench.ask("Warm up, please.")
        words = len(answer_for(question).split())
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=words + 1)
        bench.sim.set_fault("llm", "openai", "empty")
        bench.link.attempts.clear()
        with pytest.raises(APIError):
            await bench.ask(question, tools=[look_up])
        assert bench.link.ends()[:2] == [(FIRST, "cut"), (SECOND, "empty")]


async def test_arguments_that_take_long_are_no_silence() -> None:
    async with benched() as bench:
        bench.link.deadlines(FIRST, first_output_ms=2_500, stall_ms=2_500)
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=1.5)
        reply = await bench.ask("Please use tool look_up.", tools=[look_up])
        assert reply.calls == [("look_up", '{"place": "amber"}')]
        assert bench.link.ends() == [(FIRST, "ok")]


async def test_hanging_up_is_nobodys_fault() -> None:
    async with benched() as bench:
        bench.sim.set_fault("llm", "groq", "hang")
        bench.link.rule(FIRST, first_output_ms=60_000)
        asking = asyncio.ensure_future(bench.ask())
        await wait_until(lambda: bench.asked("groq"), "the hanging request")
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        await wait_until(lambda: bench.link.attempts[0].end, "the attempt's end")
        assert bench.link.ends() == [(FIRST, "abandoned")]
        assert bench.errors == []


async def test_metrics_of_the_model_that_answered_come_through() -> None:
    async with benched() as bench:
        seen: list[Any] = []
        bench.guarded.on("metrics_collected", seen.append)  # pyright: ignore[reportUnknownMemberType] - as above
        bench.sim.set_fault("llm", "groq", "status", status=503)
        await bench.ask()
        await wait_until(lambda: seen, "metrics")
        assert [metrics.metadata.model_name for metrics in seen] == ["gpt-4.1-mini"]
        assert bench.guarded.metrics_metadata["model_name"] == "gpt-4.1-mini"
        assert bench.guarded.model == "llama-3.3-70b-versatile"


async def test_the_message_in_the_fault_is_redacted() -> None:
    key = "bad_gsk_1234567890abcdefghijkl"
    async with benched(key=key) as bench:
        await bench.ask()
        event = bench.link.attempts[0].event
        assert event is not None
        assert event.kind is FaultKind.AUTHENTICATION
        assert event.status == 401
        assert event.message
        assert key not in event.message
        assert QUESTION not in event.message
