"""GuardedSTT and GuardedTTS inside a real AgentSession, with a caller who speaks and listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from livekit.agents import Agent, AgentSession, inference

from tests.support.noted_link import NotedLink
from tests.support.waiting import wait_until
from worker.guard.stt import GuardedSTT
from worker.guard.tts import GuardedTTS
from worker.providers import MendedWebSocket
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.callers import Caller, Manners, Turn
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm, groq_stt, groq_tts

SHORT = (12, 12)
PATIENT = Manners(patience_s=10.0)


class Call:
    """A session with guards on both ends of the speech, and its caller."""

    def __init__(self, sim: SimulatorServer, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.link = NotedLink()
        self.errors: list[Any] = []
        self.caller = Caller("eve", manners=PATIENT)
        detector = inference.VAD()
        self._plugins: list[Any] = [
            cartesia_stt(sim.url, session=http),
            groq_stt(sim.url),
            cartesia_tts(sim.url, session=http),
            groq_tts(sim.url, session=http),
        ]
        self.stt = GuardedSTT(self._plugins[:2], self.link, detector=detector)
        self.tts = GuardedTTS(self._plugins[2:], self.link)
        for spec in self.link.held:
            # So long that no busy machine makes a fault of a healthy one.
            self.link.deadlines(spec.id, first_output_ms=10_000, stall_ms=5_000)
        self.session: AgentSession[Any] = AgentSession(
            stt=self.stt, llm=groq_llm(sim.url), tts=self.tts, vad=detector
        )

    async def start(self) -> None:
        """The caller is in the room."""
        cast("Any", self.session).on("error", self.errors.append)
        self.caller.attach(self.session)
        await cast("Any", self.session).start(Agent(instructions="Answer."))

    async def aclose(self) -> None:
        """Both hang up."""
        await self.session.aclose()
        await self.caller.aclose()
        await self.stt.aclose()
        await self.tts.aclose()
        for plugin in self._plugins:
            await plugin.aclose()


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    async with (
        SimulatorServer(options=Options(answer_words=SHORT)) as sim,
        aiohttp.ClientSession(ws_response_class=MendedWebSocket) as http,
    ):
        made = Call(sim, http)
        await made.start()
        try:
            yield made
        finally:
            await made.aclose()
            assert made.link.double_ends == 0
            assert all(attempt.end for attempt in made.link.attempts), "an attempt was never ended"


def expected(turn: Turn) -> list[str]:
    return answer_for(turn.said, shortest=SHORT[0], longest=SHORT[1]).split()


def all_right(call: Call, turns: int) -> None:
    """Every turn was understood to the last word, and answered to the last word."""
    assert [turn.heard for turn in call.caller.turns] == [expected(turn) for turn in call.caller.turns]
    assert len(call.caller.turns) == turns
    assert call.errors == []


async def test_healthy_providers(call: Call) -> None:
    await call.caller.run(turns=1)
    all_right(call, 1)
    assert {end for _, end in call.link.ends()} == {"ok"}


async def test_recogniser_hangs_and_voice_is_cut(call: Call) -> None:
    call.link.deadlines("stt:cartesia:ink-2", first_output_ms=1000, stall_ms=1000)
    call.sim.set_fault("stt", "cartesia", "hang")
    call.sim.set_fault("tts", "cartesia", "cut", after_chunks=7)
    await call.caller.run(turns=2)
    all_right(call, 2)
    ends = call.link.ends()
    assert ends.count(("stt:cartesia:ink-2", "first_output_timeout")) == 1, "asked again though it hangs"
    assert ("tts:groq:canopylabs/orpheus-v1-english", "ok") in ends


async def test_errors_inside_open_sockets(call: Call) -> None:
    await call.caller.run(turns=1)
    call.sim.set_fault("tts", "cartesia", "status", status=429)
    call.sim.set_fault("stt", "cartesia", "status", status=429)
    await call.caller.run(turns=2)
    all_right(call, 2)
    kinds = {target: end for target, end in call.link.ends() if target.split(":")[1] == "cartesia"}
    assert kinds["tts:cartesia:sonic-3"] in {"concurrency", "rate_limit"}
    assert kinds["stt:cartesia:ink-2"] in {"concurrency", "rate_limit"}


async def test_deaf_session_is_told_and_stays_open(call: Call) -> None:
    call.sim.set_fault("stt", "cartesia", "status", status=503)
    call.sim.set_fault("stt", "groq", "status", status=503)

    async def recovers() -> None:
        await wait_until(lambda: call.errors, "the session is told", 15)
        call.sim.clear_faults()

    waiting = asyncio.ensure_future(recovers())
    await call.caller.run(turns=1)
    await waiting
    assert [turn.heard for turn in call.caller.turns] == [expected(turn) for turn in call.caller.turns]
    assert [event.error.recoverable for event in call.errors] == [False]
