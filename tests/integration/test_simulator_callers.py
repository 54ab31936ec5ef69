"""Callers in a bare AgentSession with real plugins: what the caller hears is what the model said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from livekit.agents import Agent, AgentSession, inference, stt, tts

from tests.support.waiting import wait_until
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.callers import Caller, Manners, Turn, judge
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm, groq_stt, groq_tts, streamed

SHORT = (12, 12)


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=SHORT)) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


def expected(turn: Turn) -> list[str]:
    return answer_for(turn.said, shortest=SHORT[0], longest=SHORT[1]).split()


async def started(
    sim: SimulatorServer, caller: Caller, ears: stt.STT[Any], voice: tts.TTS[Any]
) -> AgentSession[Any]:
    session: AgentSession[Any] = AgentSession(stt=ears, llm=groq_llm(sim.url), tts=voice, vad=inference.VAD())
    caller.attach(session)
    await cast("Any", session).start(Agent(instructions="Answer."))
    return session


async def test_a_call_is_answered_and_every_word_heard(
    sim: SimulatorServer, http: aiohttp.ClientSession
) -> None:
    turns: list[Turn] = []
    caller = Caller("ada", on_turn=turns.append)
    voice = cartesia_tts(sim.url, session=http)
    session = await started(sim, caller, cartesia_stt(sim.url, session=http), voice)
    try:
        summary = await caller.run(turns=2)
    finally:
        await session.aclose()
        await caller.aclose()
    assert [turn.heard for turn in turns] == [expected(turn) for turn in turns]
    assert (summary.turns, summary.silent) == (2, 0)
    for turn in turns:
        assert turn.dead_air_s is not None
        assert turn.dead_air_s > 0.3  # the recogniser's silence, the model, the voice
        assert turn.answer_s == pytest.approx(12 * 0.26, abs=0.3)
        assert turn.heard_s[0][0] >= turn.dead_air_s - 0.05


async def test_the_other_providers_too(sim: SimulatorServer, http: aiohttp.ClientSession) -> None:
    caller = Caller("bob")
    ears = streamed(groq_stt(sim.url), inference.VAD())
    session = await started(sim, caller, ears, groq_tts(sim.url, session=http))
    try:
        await caller.run(turns=1)
    finally:
        await session.aclose()
        await caller.aclose()
    (turn,) = caller.turns
    assert judge(expected(turn), turn.heard) == judge([], [])
    assert {request["provider"] for request in sim.requests()} == {"groq"}


async def test_silence_is_noted_as_silence(sim: SimulatorServer, http: aiohttp.ClientSession) -> None:
    sim.set_fault("tts", "cartesia", "silent")
    caller = Caller("cyd", manners=Manners(patience_s=2.0))
    session = await started(
        sim, caller, cartesia_stt(sim.url, session=http), cartesia_tts(sim.url, session=http)
    )
    try:
        await caller.run(turns=1)
        await wait_until(lambda: sim.requests(role="tts"), "zeros were spoken")
    finally:
        await session.aclose()
        await caller.aclose()
    (turn,) = caller.turns
    assert (turn.silent, turn.dead_air_s, turn.heard) == (True, None, [])


async def test_a_caller_notices_that_the_call_has_ended(
    sim: SimulatorServer, http: aiohttp.ClientSession
) -> None:
    caller = Caller("dee")
    session = await started(
        sim, caller, cartesia_stt(sim.url, session=http), cartesia_tts(sim.url, session=http)
    )
    running = asyncio.ensure_future(caller.run())
    try:
        await wait_until(lambda: sim.requests(kind="utterance"), "the caller speaks")
        await session.aclose()
        summary = await asyncio.wait_for(running, 20)
    finally:
        running.cancel()
        await caller.aclose()
    assert (summary.closed, summary.turns) == (True, 0)
