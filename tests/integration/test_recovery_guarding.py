"""Guards over any session: bare plugins, upstream adapters, agents' own, hand-offs, before and after the start."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from livekit.agents import Agent, AgentSession, function_tool, llm, tts
from livekit.agents.utils import is_given

from tests.support.noted_link import NotedLink
from tests.support.sessions import Sink, TextCall, text_call
from tests.support.waiting import wait_until
from worker.guard.llm import GuardedLLM
from worker.guard.stt import GuardedSTT
from worker.guard.tts import GuardedTTS
from worker.guard.voices import Voice, voice_id_of
from worker.recovery import ErrorRecoveryManager, setup_error_handling
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import cartesia_stt, groq_llm, groq_stt, groq_tts, openai_llm

GROQ = "llm:groq:llama-3.3-70b-versatile"
OPENAI = "llm:openai:gpt-4.1-mini"


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


@pytest.fixture
def link() -> NotedLink:
    return NotedLink()


@pytest.mark.parametrize("start_first", [False, True])
async def test_bare_plugin(sim: SimulatorServer, link: NotedLink, start_first: bool) -> None:
    plugin = groq_llm(sim.url)
    heard: list[Any] = []
    plugin.on("error", heard.append)
    async with text_call(plugin, link=link, start_first=start_first) as call:
        assert isinstance(call.session.llm, GuardedLLM)
        await call.ask("Hello?")
        assert link.ends() == [(GROQ, "ok")]
        sim.set_fault("llm", "groq", "status", status=500)
        await call.ask("Hello again?")
        assert heard, "the user's own listener still hears the plugin"
        assert link.ends()[1:] == [(GROQ, "server")] * len(link.ends()[1:])
        await call.session.aclose()
        await wait_until(lambda: call.session.llm is plugin, "the session is as it was")


@pytest.mark.parametrize("start_first", [False, True])
async def test_upstream_fallback_adapter_gives_its_children(
    sim: SimulatorServer, link: NotedLink, start_first: bool
) -> None:
    """A handled failover is counted, and the dead child is not asked again by callers' turns alone."""
    adapter = llm.FallbackAdapter([groq_llm(sim.url), openai_llm(sim.url)])
    sim.set_fault("llm", "groq", "status", status=401)
    async with text_call(adapter, link=link, start_first=start_first) as call:
        await call.ask("Hello?")
        assert link.ends() == [(GROQ, "authentication"), (OPENAI, "ok")]
        stats = call.manager.get_error_stats()
        assert stats == {"llm": 0, "tts": 0, "stt": 0}, "the caller noticed nothing"
        assert (stats["failovers"], stats["handled"]) == (1, {"llm": {"authentication": 1}})
        link.rule(GROQ, state="unhealthy", admit=0.0)
        asked = len(sim.requests(provider="groq", kind="chat"))
        await call.ask("And now?")
        assert len(sim.requests(provider="groq", kind="chat")) == asked
        assert call.manager.report().outcome == "ok"


async def test_listeners_on_an_adapter_hear_the_guard(sim: SimulatorServer) -> None:
    adapter = llm.FallbackAdapter([groq_llm(sim.url), openai_llm(sim.url)])
    heard: list[Any] = []
    cast("Any", adapter).on("error", heard.append)
    sim.set_fault("llm", "groq", "status", status=500)
    sim.set_fault("llm", "openai", "status", status=500)
    async with text_call(adapter) as call:
        await call.ask("Hello?")
        assert len(heard) == 1


async def test_nested_adapters_are_taken_apart(sim: SimulatorServer, link: NotedLink) -> None:
    inner = llm.FallbackAdapter([groq_llm(sim.url), openai_llm(sim.url)])
    outer = llm.FallbackAdapter([inner, groq_llm(sim.url, model="openai/gpt-oss-20b")])
    async with text_call(outer, link=link):
        assert [spec.id for spec in link.held] == [GROQ, OPENAI, "llm:groq:openai/gpt-oss-20b"]


class Second(Agent):
    """With a model of its own, or the session's."""

    def __init__(self, model: Any = None) -> None:
        super().__init__(instructions="Second.", **({"llm": model} if model is not None else {}))


class First(Agent):
    def __init__(self, model: Any, following: Agent) -> None:
        super().__init__(instructions="First.", llm=model)
        self._following = following

    @function_tool()
    async def handover(self) -> Agent:
        """Hand over."""
        return self._following


@pytest.mark.parametrize("start_first", [False, True])
async def test_agents_own_models_and_hand_offs(
    sim: SimulatorServer, link: NotedLink, start_first: bool
) -> None:
    first_model, second_model = groq_llm(sim.url), openai_llm(sim.url)
    agent = First(first_model, Second(second_model))
    async with text_call(
        groq_llm(sim.url, "session/model"), agent=agent, link=link, start_first=start_first
    ) as call:
        await call.ask("Hello?")
        assert isinstance(call.session.current_agent.llm, GuardedLLM)
        assert link.ends() == [(GROQ, "ok")]
        await call.ask("Please use tool handover", answers=0)
        await wait_until(lambda: isinstance(call.session.current_agent, Second), "the second agent is on")
        await call.ask("Who is this?")
        assert link.ends()[-1] == (OPENAI, "ok")
        assert call.manager.get_error_stats()["handled"] == {}, "a hand-off is no fault"
        sim.set_fault("llm", "openai", "status", status=500)
        await call.ask("Still there?")
        assert call.manager.get_error_stats() == {"llm": 1, "tts": 0, "stt": 0}


async def test_guards_of_the_users_own_are_kept_and_noted(sim: SimulatorServer, link: NotedLink) -> None:
    guarded = GuardedLLM([groq_llm(sim.url), openai_llm(sim.url)], link=link)
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(guarded) as call:
        assert call.session.llm is guarded
        await call.ask("Hello?")
        assert call.manager.get_error_stats()["failovers"] == 1
        assert link.ends() == [(GROQ, "server"), (OPENAI, "ok")]


async def test_a_link_that_comes_later_gets_what_was_said(sim: SimulatorServer, link: NotedLink) -> None:
    session: AgentSession[Any] = AgentSession(llm=groq_llm(sim.url), vad=None)
    manager = setup_error_handling(session, own_voice=False)
    assert setup_error_handling(session, link=link) is manager
    assert [spec.id for spec in link.held] == [GROQ]
    link.rule(GROQ, first_output_ms=1234)
    guard = cast("GuardedLLM", session.llm).guard
    assert guard.rule(GROQ).snapshot.first_output_ms == 1234
    await manager.aclose()


async def test_realtime_models_are_only_observed(sim: SimulatorServer) -> None:
    from livekit.plugins.openai import realtime

    model = realtime.RealtimeModel(api_key="none", base_url=sim.url)
    session: AgentSession[Any] = AgentSession(llm=model, vad=None)
    manager = setup_error_handling(session, own_voice=False)
    assert session.llm is model
    assert manager.get_error_stats()["realtime"] == 0
    await manager.aclose()


async def test_a_recogniser_that_does_not_stream(sim: SimulatorServer, link: NotedLink) -> None:
    """It needs a VAD; without one the session is as livekit would have it, and says so itself."""
    session: AgentSession[Any] = AgentSession(stt=groq_stt(sim.url), llm=groq_llm(sim.url))
    manager = setup_error_handling(session, link=link, own_voice=False)
    assert isinstance(session.stt, GuardedSTT)
    await manager.aclose()
    session = AgentSession(stt=groq_stt(sim.url), llm=groq_llm(sim.url), vad=None)
    manager = setup_error_handling(session, link=link, own_voice=False)
    assert not isinstance(session.stt, GuardedSTT)
    assert isinstance(session.llm, GuardedLLM)
    await manager.aclose()


async def test_sessions_of_a_process_share_one_budget_of_hedges(
    sim: SimulatorServer, link: NotedLink
) -> None:
    async with text_call(groq_llm(sim.url), link=link) as one, text_call(groq_llm(sim.url), link=link) as two:
        assert isinstance(one.session.llm, GuardedLLM)
        assert isinstance(two.session.llm, GuardedLLM)
        assert one.session.llm.hedges is two.session.llm.hedges


async def test_model_and_voice_of_a_session_share_a_turns_latency_budget(
    sim: SimulatorServer, link: NotedLink
) -> None:
    session: Any = cast("Any", AgentSession)(llm=groq_llm(sim.url), tts=groq_tts(sim.url), vad=None)
    async with text_call(None, session=session, link=link):
        assert isinstance(session.llm, GuardedLLM)
        assert isinstance(session.tts, GuardedTTS)
        assert session.llm.turns is session.tts.turns


@pytest.mark.parametrize(
    ("wished", "voice"),
    [
        ({}, "austin"),
        ({"match_voices": False}, "autumn"),
        ({"voices": {"groq": [Voice("autumn", "male", "en")]}}, "autumn"),
    ],
    ids=["matched", "not wished", "a table of one's own"],
)
async def test_how_voices_are_chosen_is_an_option(
    sim: SimulatorServer, link: NotedLink, wished: dict[str, Any], voice: str
) -> None:
    man, woman = groq_tts(sim.url), groq_tts(sim.url)
    man.update_options(voice="daniel")
    session: Any = cast("Any", AgentSession)(
        llm=groq_llm(sim.url), tts=tts.FallbackAdapter([man, woman]), vad=None
    )
    async with text_call(None, session=session, link=link, **wished):
        guard = session.tts
        assert isinstance(guard, GuardedTTS)
        guard.prepare(guard.guard.children[1])
        assert voice_id_of(woman) == voice


@pytest.mark.parametrize("wished", [True, False])
async def test_whether_a_voice_is_kept_is_an_option(
    sim: SimulatorServer, link: NotedLink, wished: bool
) -> None:
    voices = tts.FallbackAdapter([groq_tts(sim.url), groq_tts(sim.url, "another/voice")])
    session: Any = cast("Any", AgentSession)(llm=groq_llm(sim.url), tts=voices, vad=None)
    async with text_call(None, session=session, link=link, sticky_voice=wished):
        guard = session.tts
        assert isinstance(guard, GuardedTTS)
        first, second = guard.guard.children
        guard.spoke(second)
        assert guard.guard.route()[0] is (second if wished else first)


class Entering(Agent):
    """Looks at what it has as soon as it is on."""

    found: tuple[type, ...] = ()

    async def on_enter(self) -> None:
        self.found = type(self.llm), type(self.stt), type(self.tts)


async def test_an_agent_that_takes_over_is_guarded_before_it_starts(
    sim: SimulatorServer, link: NotedLink
) -> None:
    async with aiohttp.ClientSession() as http:
        agent = Entering(
            instructions="Second.",
            llm=openai_llm(sim.url),
            stt=cartesia_stt(sim.url, session=http),
            tts=groq_tts(sim.url, session=http),
        )
        async with text_call(groq_llm(sim.url), link=link) as call:
            call.session.update_agent(agent)
            await wait_until(lambda: agent.found, "it is on")
            assert agent.found == (GuardedLLM, GuardedSTT, GuardedTTS)


async def test_models_changed_in_the_call_are_guarded(sim: SimulatorServer, link: NotedLink) -> None:
    async with text_call(groq_llm(sim.url), link=link) as call:
        await call.ask("Hello?")
        cast("Any", call.session.current_agent).update_options(llm=openai_llm(sim.url))
        await call.ask("And now?")
        assert link.ends() == [(GROQ, "ok"), (OPENAI, "ok")]
        assert isinstance(call.session.current_agent.llm, GuardedLLM)


async def test_a_second_manager_sees_the_faults_and_leaves_the_users_guard_open(
    sim: SimulatorServer, link: NotedLink
) -> None:
    """As in a worker: the hook's manager is there first, then the entrypoint attaches one of its own."""
    guarded = GuardedLLM([groq_llm(sim.url), openai_llm(sim.url)], link=link)
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(guarded) as call:
        second = ErrorRecoveryManager(own_voice=False).attach(call.session)
        await cast("Any", call.manager)._closing_task
        await call.ask("Hello?")
        assert (second.report().failovers, call.manager.report().failovers) == (1, 0)
        link.rule(GROQ, first_output_ms=1234)
        assert guarded.guard.rule(GROQ).snapshot.first_output_ms == 1234, "the user's guard is not closed"
        await second.aclose()
        assert guarded.guard.link is link


async def test_a_fresh_recogniser_stream_is_undone_at_the_end(sim: SimulatorServer, link: NotedLink) -> None:
    """It is given to the agent: an agent that is used again must not begin with a closed guard."""
    agent = Agent(instructions="Answer.")
    async with aiohttp.ClientSession() as http:
        recogniser = cartesia_stt(sim.url, session=http)
        session: AgentSession[Any] = AgentSession(stt=recogniser, llm=groq_llm(sim.url))
        async with text_call(None, agent=agent, session=session, link=link) as call:
            assert cast("Any", call.manager)._guard.reset_stt()
            assert isinstance(cast("Any", agent)._stt, GuardedSTT)
        assert not is_given(cast("Any", agent)._stt)


async def test_set_up_in_another_thread_says_so_and_leaves_nothing_behind(sim: SimulatorServer) -> None:
    # With a recogniser, whose swap waits for silence in the loop: it is what failed half way.
    session: AgentSession[Any] = AgentSession(stt=cartesia_stt(sim.url), llm=groq_llm(sim.url), vad=None)
    session.output.transcription = sink = Sink()
    await cast("Any", session).start(Agent(instructions="Answer."))
    with pytest.raises(RuntimeError, match="event loop"):
        await asyncio.to_thread(setup_error_handling, session, own_voice=False)
    manager = setup_error_handling(session, own_voice=False)
    call = TextCall(session, manager, sink)
    sim.set_fault("llm", "groq", "status", status=500)
    assert await call.ask("Hello?") in shipped("en")["llm"]
    await session.aclose()
    await manager.aclose()
