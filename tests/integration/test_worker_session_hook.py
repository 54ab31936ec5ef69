"""A user's own agent in a job process: its sessions are guarded though it does nothing for that."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from livekit.agents import Agent, AgentSession, APIError

from tests.support.noted_link import NotedLink
from tests.support.sessions import Sink
from tests.support.waiting import wait_until
from worker.guard.llm import GuardedLLM
from worker.recovery import setup_error_handling
from worker.runtime import session_hook
from worker.runtime.session_hook import SessionHook
from worker.settings import read_settings
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm

GROQ = "llm:groq:llama-3.3-70b-versatile"


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(3, 3))) as server:
        yield server


@pytest.fixture(autouse=True)
def start_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook stays for a job process's life; here other tests follow."""
    monkeypatch.setattr(AgentSession, "start", cast("Any", AgentSession).start)


async def users_call(sim: SimulatorServer, link: NotedLink, *, guard: bool) -> tuple[Any, list[str]]:
    """What the user's entrypoint does, in a job process with the hook. The session's LLM, and what was said."""
    job = cast("Any", SimpleNamespace(is_fake_job=lambda: False))
    SessionHook(settings=read_settings(guard=guard), link=link, ctx=job).install()
    session = cast("Any", AgentSession)(llm=groq_llm(sim.url))
    session.output.transcription = sink = Sink()
    await session.start(Agent(instructions="Answer."))
    llm = session.llm
    await session.run(user_input="Hello?")
    await session.aclose()
    return llm, sink.said


async def test_a_session_is_guarded_without_a_change(sim: SimulatorServer) -> None:
    link = NotedLink()
    llm, said = await users_call(sim, link, guard=True)
    assert isinstance(llm, GuardedLLM)
    assert link.ends() == [(GROQ, "ok")]
    assert len(said) == 1


async def test_with_worker_guard_false_it_is_left_alone(sim: SimulatorServer) -> None:
    link = NotedLink()
    llm, said = await users_call(sim, link, guard=False)
    assert not isinstance(llm, GuardedLLM)
    assert link.held == []
    assert link.attempts == []
    assert len(said) == 1


async def test_a_session_that_cannot_be_guarded_is_still_a_call(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(session_hook, "setup_error_handling", broken)
    _, said = await users_call(sim, NotedLink(), guard=True)
    assert len(said) == 1


@pytest.mark.parametrize("end_job", [True, False])
async def test_a_call_that_was_given_up_ends_its_job_unless_told_otherwise(
    sim: SimulatorServer, end_job: bool
) -> None:
    ended: list[str] = []
    job = cast("Any", SimpleNamespace(is_fake_job=lambda: False, shutdown=ended.append))
    SessionHook(settings=read_settings(), link=NotedLink(), ctx=job).install()
    session = cast("Any", AgentSession)(llm=groq_llm(sim.url))
    session.output.transcription = Sink()
    setup_error_handling(session, {"llm": 0}, own_voice=False, end_job=end_job)
    closed: list[Any] = []
    await session.start(Agent(instructions="Answer."))
    session.on("close", closed.append)
    sim.set_fault("llm", "groq", "status", status=500)
    with contextlib.suppress(APIError):
        await session.run(user_input="Hello?")
    await wait_until(lambda: closed, "the session closes")
    assert len(ended) == (1 if end_job else 0)
