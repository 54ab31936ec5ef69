"""Every function that the per-session error handler promised, by name: take it away and its test fails."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import structlog
from livekit.agents import Agent, function_tool

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.sessions import TextCall, text_call
from tests.support.waiting import wait_until
from worker import ErrorRecoveryManager, setup_error_handling
from worker.recovery import manager_of
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm

APOLOGIES = set(shipped("en")["llm"])


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


@pytest.fixture
async def call(sim: SimulatorServer) -> AsyncIterator[TextCall]:
    async with text_call(groq_llm(sim.url)) as made:
        yield made


async def failing_turns(call: TextCall, count: int) -> list[str]:
    return [await call.ask(f"question {number}") for number in range(count)]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "authentication"), (429, "rate_limit"), (404, "model_unavailable"), (500, "server")],
)
async def test_llm_errors_invalid_key_rate_limit_model_unavailable_api_failure(
    sim: SimulatorServer, call: TextCall, status: int, kind: str
) -> None:
    sim.set_fault("llm", "groq", "status", status=status)
    said = await call.ask("Hello?")
    expected = shipped("en").get(f"llm.{kind}", shipped("en")["llm"])
    assert said in expected
    assert call.manager.get_error_stats()["by_kind"] == {"llm": {kind: 1}}


async def test_configurable_retry_limit(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=1) as call:
        first, second = await failing_turns(call, 2)
        assert first in APOLOGIES
        assert second in shipped("en")["final"]
        await wait_until(lambda: call.closed, "the session ends")


async def test_automatic_error_count_tracking(sim: SimulatorServer, call: TextCall) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    await failing_turns(call, 2)
    assert call.manager.get_error_stats()["in_a_row"] == {"llm": 2, "tts": 0, "stt": 0}


async def test_success_based_error_count_reset(sim: SimulatorServer, call: TextCall) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    await failing_turns(call, 3)
    sim.clear_faults()
    await call.ask("And now?")
    assert call.manager.get_error_stats()["in_a_row"]["llm"] == 0
    sim.set_fault("llm", "groq", "status", status=500)
    again = await failing_turns(call, 3)
    assert set(again) <= APOLOGIES, "three more apologies before the end"
    assert call.closed == []


async def test_our_own_apology_is_no_success(sim: SimulatorServer, call: TextCall) -> None:
    """The session's own counters go to zero when an apology is spoken: ours must not."""
    sim.set_fault("llm", "groq", "status", status=500)
    await failing_turns(call, 3)
    assert cast("Any", call.session)._llm_error_counts == 0
    assert call.manager.get_error_stats()["in_a_row"]["llm"] == 3


async def test_function_calls_finished_resets_the_llm(sim: SimulatorServer) -> None:
    class Helper(Agent):
        def __init__(self) -> None:
            super().__init__(instructions="Help.")
            self.in_a_row: list[int] = []

        @function_tool()
        async def lookup(self) -> str:
            """Look something up."""
            return "found"

    agent = Helper()
    async with text_call(groq_llm(sim.url), agent=agent) as call:
        cast("Any", call.session).on(
            "function_tools_executed",
            lambda _: agent.in_a_row.append(call.manager.get_error_stats()["in_a_row"]["llm"]),
        )
        sim.set_fault("llm", "groq", "status", status=500)
        await failing_turns(call, 2)
        sim.clear_faults()
        await call.ask("Please use tool lookup")
        assert agent.in_a_row == [0], "reset before the answer about the tool's result was given"


async def test_context_appropriate_messages_in_turn(sim: SimulatorServer, call: TextCall) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    said = await failing_turns(call, 3)
    assert said == list(shipped("en")["llm"])


async def test_graceful_conversation_continuation(sim: SimulatorServer, call: TextCall) -> None:
    """After an apology the talk goes on, and the model knows what the user had said, but not our words."""
    sim.set_fault("llm", "groq", "status", status=500)
    apology = await call.ask("My name is Bo")
    sim.clear_faults()
    answer = await call.ask("Go on")
    assert answer not in APOLOGIES
    history = [m.text_content for m in call.session.history.messages()]
    assert "My name is Bo" in history
    assert apology not in history
    assert call.manager.report().outcome == "recovered"


async def test_errors_are_marked_recoverable(sim: SimulatorServer) -> None:
    """livekit closes a session at the fourth unrecoverable error in a row: it must never count one."""
    seen: list[bool] = []
    async with text_call(groq_llm(sim.url), max_retries=10) as call:
        cast("Any", call.session).on("error", lambda event: seen.append(event.error.recoverable))
        sim.set_fault("llm", "groq", "status", status=500)
        await failing_turns(call, 6)
        assert seen == [True] * 6
        assert call.closed == []


async def test_already_recoverable_errors_are_left_alone(sim: SimulatorServer, call: TextCall) -> None:
    from livekit.agents.llm import LLMError
    from livekit.agents.voice.events import ErrorEvent

    error = LLMError(timestamp=0.0, label="x", error=RuntimeError("x"), recoverable=True)
    cast("Any", call.session).emit("error", ErrorEvent(error=error, source=call.session.llm))
    await call.ask("Hello?")
    assert call.manager.get_error_stats()["total"] == 0
    assert call.manager.report().apologies == 0


async def test_over_the_limit_final_message_then_session_closes(sim: SimulatorServer, call: TextCall) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    said = await failing_turns(call, 4)
    assert said[-1] in shipped("en")["final"]
    await wait_until(lambda: call.closed, "the session closes")
    assert call.closed[0].error is None, "a graceful end, not livekit's error close"
    assert call.manager.report().outcome == "gave_up"


async def test_custom_fallback_messages(sim: SimulatorServer, call: TextCall) -> None:
    call.manager.fallback_messages["llm"] = ["Custom LLM error message 1", "Custom LLM error message 2"]
    call.manager.fallback_messages["llm", "rate_limit"] = ["Slow down, please."]
    sim.set_fault("llm", "groq", "status", status=500)
    assert await failing_turns(call, 2) == ["Custom LLM error message 1", "Custom LLM error message 2"]
    sim.set_fault("llm", "groq", "status", status=429, retry_after=1)
    assert await call.ask("Again") == "Slow down, please."


async def test_get_error_stats_as_it_was(sim: SimulatorServer, call: TextCall) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    await failing_turns(call, 2)
    stats = call.manager.get_error_stats()
    assert stats == {"llm": 2, "tts": 0, "stt": 0}
    assert f"Session errors: {stats}" == "Session errors: {'llm': 2, 'tts': 0, 'stt': 0}"
    assert sum(stats.values()) == 2
    assert stats["apologies"] == 2
    assert stats["turns"] == 2


async def test_detailed_error_logging_with_emojis(sim: SimulatorServer) -> None:
    with structlog.testing.capture_logs() as lines:
        async with text_call(groq_llm(sim.url), emoji=True) as call:
            sim.set_fault("llm", "groq", "status", status=401)
            await call.ask("Hello?")
            await wait_until(lambda: any(x["action"] == "recovery.delivered" for x in lines), "all is logged")
    texts = [str(line["event"]) for line in lines if str(line["action"]).startswith("recovery.")]
    for expected in (
        "🚨 LLM error: authentication",
        "🔍 Error source: llm:groq:llama-3.3-70b-versatile",
        "🔄 Error count for llm: 1/3",
        "🔄 Attempting LLM error recovery...",
        "✅ LLM fallback message delivered",
        "📊 Session error statistics: {'llm': 1, 'tts': 0, 'stt': 0}",
        "⚠️ Total errors encountered: 1",
    ):
        assert expected in texts
    for line in lines:
        assert "stand-in-key" not in str(line)


async def test_session_end_error_reporting(sim: SimulatorServer) -> None:
    with structlog.testing.capture_logs() as lines:
        async with text_call(groq_llm(sim.url)) as call:
            sim.set_fault("llm", "groq", "status", status=500)
            await call.ask("Hello?")
            await call.session.aclose()
            await wait_until(lambda: call.closed, "the session closes")
    (line,) = [x for x in lines if x["action"] == "recovery.stats"]
    assert line["event"] == "Session error statistics: {'llm': 1, 'tts': 0, 'stt': 0}"
    assert (line["turns"], line["apologies"], line["outcome"]) == (1, 1, "recovered")
    assert line["faults"]["llm"]["server"] >= 1


async def test_no_change_to_the_agent_is_needed(sim: SimulatorServer) -> None:
    """One call on a session that already runs is enough."""
    async with text_call(groq_llm(sim.url), start_first=True) as call:
        sim.set_fault("llm", "groq", "status", status=500)
        assert await call.ask("Hello?") in APOLOGIES


async def test_manager_can_be_made_first_and_attached(sim: SimulatorServer) -> None:
    manager = ErrorRecoveryManager(max_retries=5)
    assert manager.counters.limit(Role.LLM, FaultKind.SERVER) == 5
    async with text_call(groq_llm(sim.url)) as call:
        with pytest.raises(ValueError, match="has a session"):
            call.manager.attach(cast("Any", object()))
        manager.attach(call.session)
        assert manager_of(call.session) is manager, "the newer one takes over"
        sim.set_fault("llm", "groq", "status", status=500)
        assert await call.ask("Hello?") in APOLOGIES
        assert (manager.report().apologies, call.manager.report().apologies) == (1, 0)
        assert setup_error_handling(call.session) is manager
        await manager.aclose()


async def test_set_up_twice_is_the_same_manager(sim: SimulatorServer, call: TextCall) -> None:
    with structlog.testing.capture_logs() as lines:
        again = setup_error_handling(call.session, max_retries=1)
    assert again is call.manager
    assert [line["action"] for line in lines if line["log_level"] == "warning"] == ["recovery.set_up_twice"]
    sim.set_fault("llm", "groq", "status", status=500)
    assert (await failing_turns(call, 2))[-1] in shipped("en")["final"], "the newer limit holds"


async def test_custom_error_handlers_per_error_type(sim: SimulatorServer, call: TextCall) -> None:
    seen: list[str] = []

    @call.manager.on("rate_limit")
    def busy(event: Any) -> str:
        seen.append(f"{event.role}/{event.kind} {event.count} of {event.limit}")
        return "One moment, it is busy here."

    @call.manager.on("tts")
    def never(event: Any) -> None:
        seen.append("tts")

    sim.set_fault("llm", "groq", "status", status=429)
    assert await call.ask("Hello?") == "One moment, it is busy here."
    assert seen == ["llm/rate_limit 1 of 3"]
