"""What the caller does while the agent is late, and what is heard without being understood."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit.agents import Agent, APIConnectionError, ErrorEvent, llm

from tests.support.sessions import TextCall, text_call
from tests.support.waiting import wait_until
from worker.recovery import ErrorRecoveryManager
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm

APOLOGIES, FINAL = set(shipped("en")["llm"]), set(shipped("en")["final"])
NOT_HEARD = set(shipped("en")["stt"])


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


def blip(call: TextCall, seconds: float) -> None:
    """The VAD hears something for so long, as the session tells it."""
    session, now = cast("Any", call.session), time.time()
    session._update_user_state("speaking", last_speaking_time=now - seconds)
    session._update_user_state("listening", last_speaking_time=now)


def no_words(call: TextCall, speech_s: float) -> None:
    """livekit waited in vain for a transcript of so much speech, all of the turn's together."""
    cast("Any", call.session).emit("user_transcription_timeout", SimpleNamespace(speech_duration=speech_s))


async def test_how_long_speech_may_go_without_words_is_the_newest_managers_and_undone_at_the_end(
    sim: SimulatorServer,
) -> None:
    async with text_call(groq_llm(sim.url)) as call:
        options = call.session.options
        assert options.transcription_timeout == 2.0
        second = ErrorRecoveryManager(own_voice=False, deaf_after_s=5.0).attach(call.session)
        assert options.transcription_timeout == 5.0
        third = ErrorRecoveryManager(own_voice=False, deaf_after_s=0).attach(call.session)
        assert options.transcription_timeout is None
        options.transcription_timeout = 3.0
        await second.aclose()
        await third.aclose()
        assert options.transcription_timeout == 3.0, "the user's own"


async def test_speech_without_words_is_no_fault_where_that_is_not_wished(sim: SimulatorServer) -> None:
    """livekit tells of it all the same when the user has a timeout of their own."""
    async with text_call(groq_llm(sim.url), deaf_after_s=0) as call:
        blip(call, 0.9)
        no_words(call, 0.9)
        assert await call.ask("Hello?") not in NOT_HEARD
        assert call.manager.get_error_stats()["total"] == 0


class Stuck(Agent):
    """Its own code hangs, so that no guard notices."""

    def __init__(self) -> None:
        super().__init__(instructions="")
        self.asked = 0

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[str]:
        del chat_ctx, tools, model_settings
        self.asked += 1
        await asyncio.Event().wait()
        yield "never"


async def test_a_cough_while_the_agent_is_late_does_not_end_the_wait(sim: SimulatorServer) -> None:
    agent = Stuck()
    async with text_call(groq_llm(sim.url), agent=agent, patience_s=0.3, stuck_after_s=1.0) as call:
        asking = asyncio.ensure_future(call.ask("Hello?", answers=0))
        await wait_until(lambda: agent.asked, "the model is asked")
        blip(call, 0.3)
        await wait_until(lambda: call.said, "something is said", 6.0)
        assert set(call.said) <= APOLOGIES
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"stalled": 1}}
        await asking


async def test_clicks_are_not_added_up_to_speech(sim: SimulatorServer) -> None:
    async with text_call(groq_llm(sim.url)) as call:
        for total_s in (0.2, 0.4, 0.6, 0.8):
            blip(call, 0.2)
            no_words(call, total_s)
        assert await call.ask("Hello?") not in NOT_HEARD
        assert call.manager.get_error_stats()["total"] == 0


async def test_speech_that_is_never_understood_counts_from_the_second_time(sim: SimulatorServer) -> None:
    async with text_call(groq_llm(sim.url), max_retries=1) as call:
        for number in (1, 2, 3):
            blip(call, 0.9)
            no_words(call, 0.9)
            await wait_until(lambda n=number: len(call.said) == n, "something is said")
            assert call.manager.get_error_stats()["in_a_row"]["stt"] == number - 1
        assert set(call.said[:2]) <= NOT_HEARD
        assert call.said[2] in FINAL


async def test_what_is_not_understood_while_a_reply_is_made_waits_for_the_reply(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "hang")
    async with text_call(groq_llm(sim.url)) as call:
        asking = asyncio.ensure_future(call.ask("Hello?", answers=0))
        await wait_until(lambda: sim.requests(kind="chat"), "the model is asked")
        blip(call, 0.9)
        no_words(call, 0.9)
        await wait_until(lambda: call.said, "something is said", 6.0)
        assert set(call.said) <= APOLOGIES
        assert call.manager.get_error_stats()["stt"] == 0
        await asking


async def test_a_realtime_model_that_fails_is_apologised_for(sim: SimulatorServer) -> None:
    model = groq_llm(sim.url)
    async with text_call(model) as call:
        error = llm.RealtimeModelError(
            timestamp=time.time(), label="realtime", error=APIConnectionError("gone"), recoverable=False
        )
        cast("Any", call.session).emit("error", ErrorEvent(error=error, source=model))
        await wait_until(lambda: call.said, "an apology")
        assert (call.manager.get_error_stats()["realtime"], error.recoverable) == (1, True)
        assert call.closed == []


async def test_a_speculative_failure_that_was_replaced_is_forgotten(sim: SimulatorServer) -> None:
    """The caller adds words: livekit drops the reply that failed, and the next one is answered."""
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        activity = cast("Any", call.session)._activity
        words = llm.ChatMessage(role="user", content=["Hello?"])
        early = activity._generate_reply(user_message=words, schedule_speech=False)
        pending = cast("Any", call.manager)._watch
        await wait_until(lambda: pending._pending is not None, "it has failed")
        assert call.said == []
        early._cancel()
        sim.clear_faults()
        assert await call.ask("Hello, are you there?") not in APOLOGIES
        assert call.manager.get_error_stats()["total"] == 0
