"""GuardedLLM over the real Groq and OpenAI plugins and the stand-ins: every fault, before and after output."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from supervisor.wire.vocabulary import FaultKind, Phase, State
from tests.support.guarded_llm import FIRST, QUESTION, SECOND, benched
from tests.support.simulated import Reply
from tests.support.waiting import wait_until
from worker.guard.errors import guard_fault
from worker.guard.llm import CONTINUE
from worker.guard.routing import GuardOptions
from worker.simulator.answers import ContinueMode, answer_for
from worker.simulator.stand import Options


async def test_a_healthy_model_answers_alone() -> None:
    async with benched() as bench:
        reply = await bench.ask()
        assert reply.text == answer_for(QUESTION)
        assert reply.usage is not None
        assert bench.link.ends() == [(FIRST, "ok")]
        assert bench.link.attempts[0].use.tokens == reply.usage.total_tokens
        assert bench.link.attempts[0].first_output_ms is not None
        assert bench.asked("openai") == 0
        assert bench.errors == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"fault": "status", "status": 503}, FaultKind.OVERLOADED),
        ({"fault": "status", "status": 500}, FaultKind.SERVER),
        ({"fault": "status", "status": 401}, FaultKind.AUTHENTICATION),
        ({"fault": "status", "status": 403}, FaultKind.PERMISSION),
        ({"fault": "status", "status": 429, "retry_after": 7}, FaultKind.RATE_LIMIT),
        ({"fault": "status", "status": 498}, FaultKind.OVERLOADED),
        ({"fault": "status", "status": 404}, FaultKind.MODEL_UNAVAILABLE),
        ({"fault": "status", "status": 400}, FaultKind.BAD_REQUEST),
        ({"fault": "hang"}, FaultKind.FIRST_OUTPUT_TIMEOUT),
        ({"fault": "slow", "delay_s": 20}, FaultKind.FIRST_OUTPUT_TIMEOUT),
        ({"fault": "refuse"}, FaultKind.CONNECT),
        ({"fault": "cut", "after_chunks": 0}, FaultKind.CONNECT),
        ({"fault": "empty"}, FaultKind.EMPTY),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("status") or value["fault"]),
)
async def test_a_fault_before_the_first_word_is_the_next_models_turn(
    fault: dict[str, object], kind: FaultKind
) -> None:
    async with benched() as bench:
        if kind is FaultKind.FIRST_OUTPUT_TIMEOUT:
            bench.link.rule(FIRST, first_output_ms=250)
        bench.sim.set_fault("llm", "groq", fault)
        reply = await bench.ask()
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, kind.value), (SECOND, "ok")]
        event = bench.link.attempts[0].event
        assert event is not None
        assert (event.action, event.session, event.turn, event.attempt) == ("next", "call-1", 1, 1)
        assert event.status == fault.get("status", 0)
        assert event.phase is not Phase.MID_STREAM
        assert bench.errors == [], "the session hears nothing of a fault that was mended"


@pytest.mark.parametrize("after_chunks", [1, 2, 5])
async def test_a_model_that_hangs_in_its_first_sentence_is_left_before_the_caller_notices(
    after_chunks: int,
) -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, stall_ms=60_000)
        bench.sim.set_fault("llm", "groq", "hang", mid_stream=True, after_chunks=after_chunks)
        reply = await bench.ask()
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, FaultKind.STALLED.value), (SECOND, "ok")]


async def test_retry_after_of_a_429_is_passed_on() -> None:
    async with benched() as bench:
        bench.sim.set_fault("llm", "groq", "status", status=429, retry_after=7)
        seen: list[int] = []
        failed = bench.link.failed

        def spy(attempt: int, kind: FaultKind, event: Any = None, retry_after_ms: int = 0) -> None:
            seen.append(retry_after_ms)
            failed(attempt, kind, event, retry_after_ms)

        bench.link.failed = spy
        await bench.ask()
        assert seen == [7000]


@pytest.mark.parametrize("mode", ["continue", "repeat3", "restart"])
@pytest.mark.parametrize("after", [1, 4, 11])
@pytest.mark.parametrize("how", ["broken", "clean", "error"])
async def test_a_cut_answer_goes_on_without_a_word_lost_or_twice(
    mode: ContinueMode, after: int, how: str
) -> None:
    async with benched() as bench:
        await bench.ask("Warm up, please.")  # so that usage is known to come
        bench.sim.set_continue("openai", "gpt-4.1-mini", mode)
        fields: dict[str, object] = {"after_chunks": after, "fault": "cut", "clean": how == "clean"}
        if how == "error":
            fields = {"after_chunks": after, "fault": "status", "status": 503, "mid_stream": True}
        bench.sim.set_fault("llm", "groq", fields)
        bench.link.attempts.clear()
        reply = await bench.ask()
        assert reply.text.split() == answer_for(QUESTION).split()
        first, second = bench.link.attempts
        assert (first.target, second.target, second.end) == (FIRST, SECOND, "ok")
        assert first.event is not None
        assert (first.event.action, first.event.phase) == ("continue", Phase.MID_STREAM)
        expected = {"broken": "cut", "clean": "cut", "error": "server"}[how]
        assert first.kind is not None
        assert first.kind.value == expected
        assert bench.errors == []


@pytest.mark.parametrize("clean", [True, False])
async def test_a_cut_after_the_last_word_leaves_nothing_to_add(clean: bool) -> None:
    async with benched() as bench:
        await bench.ask("Warm up, please.")
        words = len(answer_for(QUESTION).split())
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=words, clean=clean)
        bench.link.attempts.clear()
        reply = await bench.ask()
        assert reply.text == answer_for(QUESTION)
        assert bench.link.ends() == [(FIRST, "cut"), (SECOND, "ok")], "who has nothing to add is not to blame"
        assert bench.errors == []


async def test_nothing_to_add_before_the_answer_is_whole_is_no_end() -> None:
    async with benched() as bench:
        await bench.ask("Warm up, please.")
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=3)
        bench.sim.set_fault("llm", "openai", "empty")
        bench.link.attempts.clear()
        with pytest.raises(APIConnectionError):
            await bench.ask()
        assert bench.link.ends()[:2] == [(FIRST, "cut"), (SECOND, "empty")]


async def test_the_next_model_is_told_what_was_said_and_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with benched() as bench:
        second = cast("Any", bench.guarded.guard.children[1].plugin)
        contexts: list[Any] = []
        chat = second.chat

        def noted(**given: Any) -> Any:
            contexts.append(given["chat_ctx"])
            return chat(**given)

        monkeypatch.setattr(second, "chat", noted)
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=4, clean=False)
        await bench.ask()
        (context,) = contexts
        asked, partial, wish = [(m.role, m.text_content) for m in context.messages()]
        assert (asked, wish) == (("user", QUESTION), ("system", CONTINUE))
        assert partial[0] == "assistant"
        words = partial[1].split()
        assert words
        assert words == answer_for(QUESTION).split()[: len(words)]


async def test_a_stream_that_stops_moving_is_cut_off() -> None:
    async with benched() as bench:
        bench.link.rule(FIRST, stall_ms=200)
        # The stand-in's pace is that of the server: a word every 20 s after the first.
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=20.0)
        reply = Reply()
        asking = asyncio.ensure_future(bench.ask(into=reply))
        await wait_until(lambda: reply.text, "the first word")
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=0.001)
        await asking
        assert reply.text.split() == answer_for(QUESTION).split()
        assert bench.link.ends() == [(FIRST, "stalled"), (SECOND, "ok")]


async def test_a_stalled_stream_that_will_not_close_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with benched() as bench:
        plugin = bench.guarded.guard.children[0].plugin
        opens, let_go = plugin.chat, asyncio.Event()

        def stubborn(**given: Any) -> Any:
            stream: Any = opens(**given)
            closes = stream.aclose

            async def aclose() -> None:
                await let_go.wait()
                await closes()

            stream.aclose = aclose
            return stream

        monkeypatch.setattr(plugin, "chat", stubborn)
        bench.link.rule(FIRST, stall_ms=200)
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=20.0)
        reply = Reply()
        asking = asyncio.ensure_future(bench.ask(into=reply))
        await wait_until(lambda: reply.text, "the first word")
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=0.001)
        try:
            await asyncio.wait_for(asking, 20)
        finally:
            let_go.set()
        assert reply.text.split() == answer_for(QUESTION).split()
        assert bench.link.ends() == [(FIRST, "stalled"), (SECOND, "ok")]


async def test_both_cut_goes_back_to_the_first() -> None:
    async with benched() as bench:
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=4, share=0.5)
        bench.sim.set_fault("llm", "openai", "cut", after_chunks=3)
        await bench.ask("Warm up, please.")
        bench.link.attempts.clear()
        reply = await bench.ask()
        assert reply.text.split() == answer_for(QUESTION).split()
        assert bench.link.ends() == [(FIRST, "cut"), (SECOND, "cut"), (FIRST, "ok")]


async def test_one_model_continues_its_own_answer() -> None:
    async with benched(children=1) as bench:
        await bench.ask("Warm up, please.")
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=5, share=0.5)
        await bench.ask("Takes the good half of the share.")
        bench.link.attempts.clear()
        reply = await bench.ask()
        assert reply.text.split() == answer_for(QUESTION).split()
        assert bench.link.ends() == [(FIRST, "cut"), (FIRST, "ok")]


async def test_what_follows_a_sentence_that_was_heard_has_a_latency_budget_of_its_own() -> None:
    async with benched(children=1, options=GuardOptions(latency_budget_ms=1000)) as bench:
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=11, share=0.5)
        await bench.ask("Takes the good half of the share.")
        bench.link.attempts.clear()
        bench.sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=0.12)
        reply = await bench.ask()
        assert reply.text.split() == answer_for(QUESTION).split()
        assert bench.link.ends() == [(FIRST, "cut"), (FIRST, "ok")]


async def test_without_continuation_a_cut_answer_is_an_error() -> None:
    async with benched(continue_answers=False) as bench:
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=3)
        reply = Reply()
        with pytest.raises(APIConnectionError) as caught:
            await bench.ask(into=reply)
        assert reply.text.split() == answer_for(QUESTION).split()[: len(reply.text.split())]
        fault = guard_fault(caught.value)
        assert fault is not None
        assert fault.kind is FaultKind.CUT
        assert bench.asked("openai") == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"fault": "status", "status": 503}, APIStatusError),
        ({"fault": "hang"}, APITimeoutError),
        ({"fault": "refuse"}, APIConnectionError),
        ({"fault": "empty"}, APIConnectionError),
        ({"fault": "status", "status": 401}, APIStatusError),
    ],
    ids=["503", "hang", "refuse", "empty", "401"],
)
async def test_when_all_fail_the_session_hears_of_it_once(
    fault: dict[str, object], error: type[APIError]
) -> None:
    async with benched(
        key="gsk_thisIsTheSecretKey1234567890",
        options=GuardOptions(latency_budget_ms=900),
        first_output_ms=300 if fault["fault"] == "hang" else 5_000,
    ) as bench:
        bench.sim.set_fault("llm", "groq", fault)
        bench.sim.set_fault("llm", "openai", fault)
        with pytest.raises(error) as caught:
            await bench.ask()
        assert not caught.value.retryable
        assert guard_fault(caught.value) is not None
        assert len(bench.errors) == 1
        assert bench.errors[0].recoverable is False
        assert "thisIsTheSecretKey" not in repr(caught.value) + str(caught.value)
        link: BaseException | None = caught.value
        while link is not None:
            assert type(link).__module__.startswith(("livekit", "builtins")), (
                "no SDK error with a key hangs on it"
            )
            link = link.__cause__ or link.__context__
        last = bench.link.attempts[-1].event
        assert last is not None
        assert last.action.startswith("gave_up:")


async def test_a_server_error_everywhere_is_retried_within_the_budget_only() -> None:
    async with benched(options=GuardOptions(latency_budget_ms=30_000)) as bench:
        bench.sim.set_fault("llm", "groq", "status", status=503)
        bench.sim.set_fault("llm", "openai", "status", status=503)
        with pytest.raises(APIStatusError):
            await bench.ask()
        # Each is asked, then each once more (max_attempts 2), and no more.
        assert [target for target, _ in bench.link.ends()] == [FIRST, SECOND, FIRST, SECOND]


async def test_in_panic_nothing_is_retried() -> None:
    async with benched() as bench:
        for target in (FIRST, SECOND):
            bench.link.rule(target, state=State.UNHEALTHY, admit=0.0)
        bench.sim.set_fault("llm", "groq", "status", status=503)
        bench.sim.set_fault("llm", "openai", "status", status=503)
        with pytest.raises(APIStatusError):
            await bench.ask()
        assert [target for target, _ in bench.link.ends()] == [FIRST, SECOND]
