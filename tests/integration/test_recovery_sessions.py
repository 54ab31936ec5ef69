"""Text sessions in trouble: what ends them, who takes over, what is never a fault, and what users may do wrong."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from livekit.agents import Agent, AgentSession, function_tool, llm

from supervisor.wire.messages import SessionInfo
from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.noted_link import NotedLink
from tests.support.sessions import text_call
from tests.support.waiting import WaitTimeout, wait_until
from worker.recovery import ErrorRecoveryManager, setup_error_handling
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm, openai_llm

_ERROR = (Role.LLM, FaultKind.SERVER)
APOLOGIES, FINAL = set(shipped("en")["llm"]), set(shipped("en")["final"])


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


def hand_offs(session: Any) -> list[Any]:
    return [item for item in session.history.items if item.type == "agent_handoff"]


# ------------------------------------------------------------------ over the limit


async def test_stay_gives_every_turn_the_final_message(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="stay") as call:
        assert {await call.ask(f"Question {n}") for n in range(3)} <= set(shipped("en")["final.stay"])
        sim.clear_faults()
        assert await call.ask("Better?") not in FINAL
        assert call.closed == []


async def test_transfer_to_another_agent(sim: SimulatorServer) -> None:
    given: list[Any] = []

    async def hook(session: Any) -> Agent:
        given.append(session)
        return Agent(instructions="Colleague.", llm=openai_llm(sim.url))

    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="transfer", transfer=hook) as call:
        assert await call.ask("Hello?") in shipped("en")["final.transfer"]
        await wait_until(lambda: len(hand_offs(call.session)) == 2, "the colleague is on")
        assert given == [call.session]
        assert await call.ask("Who are you?") not in APOLOGIES | FINAL
        assert (call.closed, call.manager.report().outcome) == ([], "transferred")


async def test_a_caller_who_is_put_through_leaves_before_the_hook_has_ended(sim: SimulatorServer) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def hook(_: Any) -> None:
        asked.set()
        await never.wait()

    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="transfer", transfer=hook) as call:
        await call.ask("Hello?")
        await wait_until(asked.is_set, "the hook is at work")
        await call.session.aclose()
        await wait_until(lambda: call.closed, "livekit closes the session")
        assert call.manager.report().outcome == "transferred"


class Greeter(Agent):
    """Greets first, with the model's words."""

    async def on_enter(self) -> None:
        self.session.generate_reply(instructions="Greet.")


async def test_a_colleague_who_fails_at_once_is_apologised_for(sim: SimulatorServer) -> None:
    def hook(_: Any) -> Agent:
        return Greeter(instructions="Greeter.", llm=openai_llm(sim.url))

    limits = {"llm.server": 0, "llm.overloaded": 3}
    sim.set_fault("llm", "groq", "status", status=500)
    sim.set_fault("llm", "openai", "status", status=503)
    async with text_call(
        groq_llm(sim.url), max_retries=limits, on_exhausted="transfer", transfer=hook
    ) as call:
        assert await call.ask("Hello?") in shipped("en")["final.transfer"]
        await wait_until(lambda: APOLOGIES & set(call.said), "an apology")
        assert call.manager.report().outcome == "transferred"


@pytest.mark.parametrize("how", ["raises", "false", "cancelled"])
async def test_a_transfer_that_fails_closes(sim: SimulatorServer, how: str) -> None:
    def hook(_: Any) -> bool:
        if how == "raises":
            raise TypeError("mine")
        if how == "cancelled":
            raise asyncio.CancelledError
        return False

    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="transfer", transfer=hook) as call:
        await call.ask("Hello?")
        await wait_until(lambda: call.closed, "the session closes")


async def test_a_transfer_to_a_number_leaves_the_session_open_and_is_tried_twice(
    sim: SimulatorServer,
) -> None:
    given: list[Any] = []

    async def hook(session: Any) -> None:
        given.append(session)

    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="transfer", transfer=hook) as call:
        for n in (1, 2):
            assert await call.ask("Hello?") in shipped("en")["final.transfer"]
            await wait_until(lambda n=n: len(given) == n, "it is asked")
            await wait_until(lambda: call.manager.report().outcome == "transferred", "it has taken over")
        assert given == [call.session] * 2
        assert call.closed == []
        assert await call.ask("Hello?") in FINAL, "the third time the call ends"
        await wait_until(lambda: call.closed, "the session closes")
        assert (len(given), call.manager.report().outcome) == (2, "gave_up")


async def test_counts_begin_anew_with_whom_the_call_was_transferred_to(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    given: dict[str, Any] = {"max_retries": 1, "on_exhausted": "transfer", "transfer": lambda _: None}
    async with text_call(groq_llm(sim.url), **given) as call:
        for _ in range(2):
            assert await call.ask("Hello?") in APOLOGIES
            assert await call.ask("Hello?") in shipped("en")["final.transfer"]
            await wait_until(
                lambda: call.manager.get_error_stats()["in_a_row"]["llm"] == 0, "it has taken over"
            )


# ------------------------------------------------------------------ handlers in a call


@pytest.mark.parametrize("style", ["hangs", "hangs in a thread", "raises"])
async def test_a_bad_handler_costs_a_call_nothing(sim: SimulatorServer, style: str) -> None:
    release = threading.Event()
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        if style == "hangs":

            @call.manager.on("error")
            async def hang(_: Any) -> None:
                await asyncio.Event().wait()

        elif style == "raises":

            @call.manager.on("error")
            def fail(_: Any) -> None:
                raise TypeError("mine")

        else:
            call.manager.on("error", lambda _: release.wait(30))
        said = [await call.ask(f"Question {n}") for n in range(3)]
        release.set()
        assert set(said) <= APOLOGIES
        sim.clear_faults()
        assert await call.ask("And now?") not in APOLOGIES


async def test_a_handler_may_take_care_of_it_alone(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    seen: list[Any] = []
    async with text_call(groq_llm(sim.url)) as call:

        @call.manager.on("llm")
        def mine(event: Any) -> None:
            seen.append(event.kind)
            event.ignore()

        await call.ask("Hello?", answers=0)
        await wait_until(lambda: seen, "the handler is asked")
        assert call.manager.report().apologies == 0


# ------------------------------------------------------------------ what is a fault, and what is none


async def test_an_empty_answer_goes_to_the_next_model(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "empty")
    async with text_call(llm.FallbackAdapter([groq_llm(sim.url), openai_llm(sim.url)])) as call:
        assert await call.ask("Hello?") not in APOLOGIES
        assert call.manager.get_error_stats()["handled"] == {"llm": {"empty": 1}}


async def test_an_empty_answer_of_the_last_model_is_apologised_for(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "empty")
    async with text_call(groq_llm(sim.url)) as call:
        assert await call.ask("Hello?") in APOLOGIES
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"empty": 1}}


class Quiet(Agent):
    """Its tool needs no answer."""

    def __init__(self) -> None:
        super().__init__(instructions="Quiet.")
        self.ran = 0

    @function_tool()
    async def hangup(self) -> None:
        """Nothing to say about it."""
        self.ran += 1


async def test_turns_of_tools_alone_are_no_faults(sim: SimulatorServer) -> None:
    agent = Quiet()
    async with text_call(groq_llm(sim.url), agent=agent) as call:
        await call.ask("Please use tool hangup", answers=0)
        await wait_until(lambda: agent.ran == 1, "the tool ran")
        await wait_until(lambda: call.session.agent_state == "listening", "the turn is over")
        assert call.manager.get_error_stats()["total"] == 0
        assert call.manager.report().apologies == 0


async def test_interruptions_are_no_faults(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "hang")
    async with text_call(groq_llm(sim.url)) as call:
        running = asyncio.ensure_future(call.ask("Hello?", answers=0))
        await wait_until(lambda: sim.requests(kind="chat"), "the model is asked")
        await call.session.interrupt(force=True)
        await running
        assert call.manager.get_error_stats()["total"] == 0
        assert call.said == []


async def test_a_hanging_model_is_noticed_and_apologised_for(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "hang")
    async with text_call(groq_llm(sim.url)) as call:
        assert await call.ask("Hello?") in APOLOGIES
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"first_output_timeout": 1}}
        # Not the watchdog over stuck agents; the very times are in test_recovery_patience, on a clock of its own.
        assert call.manager.report().longest_silence_s < call.manager.options.stuck_after_s


class Stuck(Agent):
    """An agent whose own code hangs."""

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[str]:
        del chat_ctx, tools, model_settings
        await asyncio.Event().wait()
        yield "never"


async def test_an_agent_stuck_in_thinking_is_cured(sim: SimulatorServer) -> None:
    agent = Stuck(instructions="")
    async with text_call(groq_llm(sim.url), agent=agent, patience_s=0.3, stuck_after_s=0.6) as call:
        assert await call.ask("Hello?") in APOLOGIES
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"stalled": 1}}
        assert call.session.agent_state != "thinking"


class Slow(Agent):
    """A tool that takes its time is no stuck agent."""

    def __init__(self) -> None:
        super().__init__(instructions="Slow.")
        self.go = asyncio.Event()

    @function_tool()
    async def search(self) -> str:
        """Search for long."""
        await self.go.wait()
        return "found"


async def test_a_running_tool_is_not_stuck(sim: SimulatorServer) -> None:
    """Nor is the model's request after it, however long the tool took (when exactly: test_recovery_patience)."""
    agent = Slow()
    async with text_call(groq_llm(sim.url), agent=agent, patience_s=2.0, stuck_after_s=2.0) as call:
        running = asyncio.ensure_future(call.ask("Please use tool search"))
        with pytest.raises(WaitTimeout):
            await wait_until(lambda: call.said, "nothing is said while it searches", 3.0)
        agent.go.set()
        assert await running not in APOLOGIES
        assert call.manager.get_error_stats()["total"] == 0


# ------------------------------------------------------------------ languages, records, ends


async def test_messages_in_the_callers_language(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), language="de-DE") as call:
        assert await call.ask("Hallo?") in shipped("de")["llm"]


class Records(NotedLink):
    def __init__(self) -> None:
        super().__init__()
        self.infos: list[SessionInfo] = []

    def session(self, info: SessionInfo) -> None:
        self.infos.append(info)


async def test_the_session_is_recorded_and_its_end_too(sim: SimulatorServer) -> None:
    link = Records()
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), link=link) as call:
        await wait_until(lambda: link.infos, "the session is published as it starts")
        assert link.infos[0].ended_at_ms == 0
        await call.ask("Hello?")
        await call.session.aclose()
        await wait_until(lambda: link.infos[-1].ended_at_ms, "its end is published")
    last = link.infos[-1]
    assert last.worker == "worker-under-test"
    assert (last.turns, last.apologies, last.outcome) == (1, 1, "recovered")
    assert "llm" in last.errors


async def test_a_session_that_closes_while_recovering(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "hang")
    async with text_call(groq_llm(sim.url)) as call:
        running = asyncio.ensure_future(call.ask("Hello?", answers=0))
        await wait_until(lambda: sim.requests(kind="chat"), "the model is asked")
        closing = asyncio.ensure_future(call.session.aclose())
        call.manager.error(*_ERROR)
        await closing
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        call.manager.error(*_ERROR)
        assert call.said == []


async def test_set_up_again_after_the_session_has_closed(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        await call.session.aclose()
        await wait_until(lambda: call.manager.over, "it is over")
        again = setup_error_handling(call.session, own_voice=False)
        call.session.output.transcription = call.sink
        assert again is not call.manager
        await cast("Any", call.session).start(Agent(instructions="Again."))
        assert await call.ask("Hello?") in APOLOGIES
        await again.aclose()


async def test_set_up_again_after_the_manager_was_closed(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        await call.manager.aclose()
        with pytest.raises(ValueError, match="make one for each"):
            call.manager.attach(call.session)
        again = setup_error_handling(call.session, own_voice=False)
        assert again is not call.manager
        assert await call.ask("Hello?") in APOLOGIES
        await again.aclose()


async def test_a_listener_of_the_users_that_raises_does_not_keep_errors_from_us(sim: SimulatorServer) -> None:
    """livekit lets a TypeError of one listener end the others: ours comes first, whoever listened before."""

    def wrong(_: Any) -> None:
        raise TypeError("mine")

    session: AgentSession[Any] = AgentSession(llm=groq_llm(sim.url), vad=None)
    cast("Any", session).on("error", wrong)
    async with text_call(groq_llm(sim.url), session=session) as call:
        sim.set_fault("llm", "groq", "status", status=500)
        assert await call.ask("Hello?") in APOLOGIES
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"server": 1}}, (
            "not only its lack of words"
        )


def test_without_an_event_loop_there_is_a_clear_error() -> None:
    manager = ErrorRecoveryManager(own_voice=False)
    with pytest.raises(RuntimeError, match="event loop"):
        manager.looked()
