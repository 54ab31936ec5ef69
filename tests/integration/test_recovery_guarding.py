"""Guards over any session: bare plugins, upstream adapters, agents' own, hand-offs, before and after the start."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from livekit.agents import Agent, AgentSession, function_tool, llm

from tests.support.noted_link import NotedLink
from tests.support.sessions import text_call
from tests.support.waiting import wait_until
from worker.guard.llm import GuardedLLM
from worker.guard.stt import GuardedSTT
from worker.recovery import setup_error_handling
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm, groq_stt, openai_llm

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
