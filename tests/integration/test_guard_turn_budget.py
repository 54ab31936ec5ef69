"""One latency budget for a turn: what the model used of it, its voice has not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from livekit.agents import APIError
from livekit.plugins import cartesia, groq

from tests.support.guarded_llm import SECOND, benched
from tests.support.noted_link import NotedLink
from worker.guard.routing import GuardOptions, HedgeBudget, TurnClock
from worker.guard.tts import GuardedTTS
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

CARTESIA = "tts:cartesia:sonic-3"
GROQ = "tts:groq:canopylabs/orpheus-v1-english"
BUDGET_S = 30.0


DEAD: dict[str, object] = {"fault": "status", "status": 503}


@asynccontextmanager
async def voices(
    turns: TurnClock, hedges: HedgeBudget, first: dict[str, object], second: dict[str, object]
) -> AsyncGenerator[tuple[GuardedTTS, NotedLink]]:
    """Two voices with these faults."""
    async with SimulatorServer(options=Options(tts_speed=30.0)) as sim, aiohttp.ClientSession() as http:
        for provider, fault in (("cartesia", first), ("groq", second)):
            if fault:
                sim.set_fault("tts", provider, fault)
        plugins = [
            cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=http),
            groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=http),
        ]
        link = NotedLink()
        link.deadlines(CARTESIA, GROQ, first_output_ms=10_000, stall_ms=5_000)
        options = GuardOptions(latency_budget_ms=int(BUDGET_S * 1000))
        guarded = GuardedTTS(plugins, link, options=options, hedges=hedges, turns=turns)
        try:
            yield guarded, link
        finally:
            await guarded.aclose()
            await plugins[0].aclose()


async def say(guarded: GuardedTTS) -> None:
    async with guarded.stream() as stream:
        stream.push_text("The boats return by noon.")
        stream.end_input()
        async for _ in stream:
            pass


async def asked(turns: TurnClock, times: int = 1) -> list[str]:
    async with voices(turns, HedgeBudget(), DEAD, DEAD) as (guarded, link):
        for _ in range(times):
            with pytest.raises(APIError):
                await say(guarded)
        return [target for target, _ in link.ends()]


async def test_a_voice_has_the_whole_budget_when_the_model_took_no_time() -> None:
    now = time.monotonic()
    turns = TurnClock()
    turns.answered(now, now)
    assert await asked(turns) == [CARTESIA, GROQ, CARTESIA, GROQ], "each is asked once more"


async def test_a_voice_retries_nothing_when_the_model_used_the_budget_up() -> None:
    now = time.monotonic()
    turns = TurnClock()
    turns.answered(now - BUDGET_S, now)
    assert await asked(turns) == [CARTESIA, GROQ], "who was not asked is asked, nobody twice"


async def test_the_next_words_have_a_budget_of_their_own() -> None:
    now = time.monotonic()
    turns = TurnClock()
    turns.answered(now - BUDGET_S, now)
    assert await asked(turns, times=2) == [CARTESIA, GROQ, CARTESIA, GROQ, CARTESIA, GROQ]


async def test_words_without_a_model_have_the_whole_budget() -> None:
    assert await asked(TurnClock()) == [CARTESIA, GROQ, CARTESIA, GROQ]


async def test_an_old_answer_is_not_the_one_that_is_spoken() -> None:
    now = time.monotonic()
    turns = TurnClock()
    turns.answered(now - BUDGET_S, now - 6.0)
    assert await asked(turns) == [CARTESIA, GROQ, CARTESIA, GROQ]


async def test_the_model_says_since_when_the_caller_waits() -> None:
    turns = TurnClock()
    async with benched(first_output_ms=400, turns=turns) as bench:
        bench.sim.set_fault("llm", "groq", "hang")
        await bench.ask()
        assert bench.link.ends()[-1] == (SECOND, "ok")
    now = time.monotonic()
    assert now - turns.began(now) >= 0.4, "the hang is part of the turn"


async def test_a_voice_waits_for_no_budget_of_hedges_when_the_model_took_long() -> None:
    now = time.monotonic()
    turns, hedges = TurnClock(), HedgeBudget(every_s=3600.0)
    assert hedges.take(now)
    turns.answered(now - BUDGET_S / 2, now)
    async with voices(turns, hedges, {"fault": "hang"}, {}) as (guarded, link):
        link.rule(CARTESIA, hedge_ms=40, first_output_ms=60_000)
        await asyncio.wait_for(say(guarded), 30)
        assert link.ends() == [(CARTESIA, "abandoned"), (GROQ, "ok")]
