"""What users give a session of their own: handlers, listeners, messages; and what callers hear of it."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.sessions import text_call
from tests.support.waiting import WaitTimeout, wait_until
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm

_ERROR = (Role.LLM, FaultKind.SERVER)
APOLOGIES, FINAL = set(shipped("en")["llm"]), set(shipped("en")["final"])


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


def names_of_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_two_errors_at_once_are_one_apology(sim: SimulatorServer) -> None:
    asked: list[Any] = []
    async with text_call(groq_llm(sim.url)) as call:

        @call.manager.on("error")
        async def think(event: Any) -> None:
            asked.append(event)
            await asyncio.sleep(0.1)  # both errors are there before the first is answered

        call.manager.error(*_ERROR)
        call.manager.error(*_ERROR)
        await wait_until(lambda: call.said and asked, "something is said")
        await wait_until(lambda: "recovery" not in names_of_tasks(), "both are decided")
        await call.session.drain()
        assert (len(call.said), call.manager.report().apologies) == (1, 1)


async def test_a_handler_that_only_watches_sees_each_fault(sim: SimulatorServer) -> None:
    seen: list[tuple[str, int]] = []
    async with text_call(groq_llm(sim.url)) as call:

        @call.manager.on("llm")
        def watch(event: Any) -> None:
            seen.append((event.kind.value, event.count))

        sim.set_fault("llm", "groq", "status", status=500)
        assert await call.ask("Hello?") in APOLOGIES
        sim.set_fault("llm", "groq", "status", status=429, retry_after=1)
        assert await call.ask("Hello?") in shipped("en")["llm.rate_limit"]
        assert seen == [("server", 1), ("rate_limit", 2)]


@pytest.mark.parametrize("how", ["words of its own", "the shipped words", "no words"])
async def test_a_handler_may_give_up_at_the_first_error(sim: SimulatorServer, how: str) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:

        @call.manager.on("llm")
        def enough(event: Any) -> None:
            event.give_up()
            if how != "the shipped words":
                event.text = "That was that." if how == "words of its own" else ""

        await call.ask("Hello?", answers=0)
        await wait_until(lambda: call.closed, "the session closes")
        assert call.closed[0].error is None
        expected = {"words of its own": ["That was that."], "no words": []}
        assert call.said == expected.get(how, call.said)
        assert how != "the shipped words" or (len(call.said) == 1 and call.said[0] in FINAL)
        assert call.manager.report().outcome == "gave_up"


@pytest.mark.parametrize("how", ["the method", "the word", "no words of ours"])
async def test_a_handler_may_go_on_over_the_limit(sim: SimulatorServer, how: str) -> None:
    sim.set_fault("llm", "groq", "status", status=429)
    async with text_call(groq_llm(sim.url), max_retries=0) as call:

        @call.manager.on("llm")
        def go_on(event: Any) -> str | None:
            if how == "the word":
                return "apologise"
            event.apologise()
            if how == "no words of ours":
                event.say("Once more?")
            return None

        said = {await call.ask(f"Question {n}") for n in range(2)}
        own = how == "no words of ours"
        assert said <= ({"Once more?"} if own else set(shipped("en")["llm.rate_limit"])), "no goodbye"
        assert call.closed == []
        assert (call.manager.report().apologies, call.manager.report().final_messages) == (2, 0)


@pytest.mark.parametrize(("do", "said"), [("nothing", 0), ("final", 1), ("rubbish", 1), (None, 1)])
async def test_a_handler_may_set_what_is_done_with_a_plain_word(
    sim: SimulatorServer, do: Any, said: int
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        asked: list[Any] = []

        @call.manager.on("llm")
        async def decide(event: Any) -> None:
            event.do = do
            asked.append(event)

        await call.ask("Hello?", answers=said)
        await wait_until(lambda: asked and "recovery" not in names_of_tasks(), "it is decided")
        assert (len(call.said), call.manager.report().final_messages) == (said, int(do == "final"))


async def test_an_answer_that_comes_while_handlers_are_asked_is_enough(sim: SimulatorServer) -> None:
    asked, known = asyncio.Event(), asyncio.Event()
    async with text_call(groq_llm(sim.url), handler_timeout_s=30.0) as call:

        @call.manager.on("llm")
        async def look_up(_: Any) -> None:
            asked.set()
            await known.wait()

        call.manager.error(*_ERROR)
        await asked.wait()
        answer = await call.ask("Hello?")
        known.set()
        await wait_until(lambda: "recovery" not in names_of_tasks(), "it is decided")
        await call.session.drain()
        assert call.said == [answer]


@pytest.mark.parametrize("nonsense", [7, None, b"Sorry."])
async def test_words_that_are_none_are_not_said(sim: SimulatorServer, nonsense: Any) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:

        @call.manager.on("llm")
        def confused(event: Any) -> None:
            event.text = nonsense
            event.say(nonsense)

        assert await call.ask("Hello?") in APOLOGIES


async def test_how_long_handlers_are_waited_for_is_an_option(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    known = asyncio.Event()
    async with text_call(groq_llm(sim.url), handler_timeout_s=30.0) as call:

        @call.manager.on("llm")
        async def look_up(_: Any) -> str:
            await known.wait()
            return "We know about it."

        asking = asyncio.ensure_future(call.ask("Hello?"))
        with pytest.raises(WaitTimeout):
            await wait_until(lambda: call.said, "it is waited for", 1.0)
        known.set()
        assert await asking == "We know about it."


async def test_an_apology_in_the_models_context_when_wished(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), add_to_chat_ctx=True) as call:
        apology = await call.ask("Hello?")
        await wait_until(
            lambda: "assistant" in [getattr(i, "role", "") for i in call.session.history.items], "in it"
        )
        last = call.session.history.items[-1]
        assert (last.type, getattr(last, "text_content", "")) == ("message", apology)
        assert call.manager.get_error_stats()["in_a_row"]["llm"] == 1, "our own words are no success"


async def test_a_speech_listener_that_raises_does_not_keep_the_apology_from_the_caller(
    sim: SimulatorServer,
) -> None:
    def wrong(event: Any) -> None:
        if event.source == "say":
            raise TypeError("mine")

    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        cast("Any", call.session).on("speech_created", wrong)
        assert await call.ask("Hello?") in APOLOGIES
        assert wrong in cast("Any", call.session)._events["speech_created"]


async def test_messages_set_as_a_whole_at_any_time(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        call.manager.fallback_messages = {"llm": ["Mine."]}
        assert await call.ask("Hello?") == "Mine."
        with pytest.raises(ValueError, match="at least one"):
            call.manager.fallback_messages = {"llm": []}
        with pytest.raises(ValueError, match="needs messages by role or kind"):
            call.manager.fallback_messages = cast("Any", [])
        assert call.manager.fallback_messages["llm"] == ["Mine."]
