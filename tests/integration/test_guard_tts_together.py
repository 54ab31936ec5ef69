"""Words that more than one attempt speaks: each is heard once, and what follows has its time."""

from __future__ import annotations

import aiohttp
import pytest
from livekit import rtc
from livekit.plugins import cartesia, groq

from tests.support.noted_link import NotedLink
from tests.support.simulated import say, words_in
from worker.guard.routing import GuardOptions
from worker.guard.tts import GuardedTTS
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

CARTESIA = "tts:cartesia:sonic-3"
GROQ = "tts:groq:canopylabs/orpheus-v1-english"
TEXT = "Every morning the quiet harbour wakes before anybody else does."


@pytest.mark.parametrize("late_s", [0.3, 1.2])
async def test_of_two_voices_that_both_sound_one_is_heard(late_s: float) -> None:
    """Each needs longer for its words than the other one for its first sound, whichever that is."""
    options = Options(tts_speed=1.0)
    async with SimulatorServer(options=options) as sim, aiohttp.ClientSession() as http:
        voices = [
            cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=http),
            groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=http),
        ]
        link = NotedLink()
        link.deadlines(CARTESIA, GROQ, first_output_ms=30_000, stall_ms=10_000)
        link.rule(CARTESIA, hedge_ms=50)
        sim.set_fault("tts", "cartesia", "slow", delay_s=late_s)
        sim.set_fault("tts", "groq", "slow", delay_s=0.5)
        guarded = GuardedTTS(voices, link)
        frames: list[rtc.AudioFrame] = []
        async with guarded.stream() as stream:
            stream.push_text(TEXT)
            stream.end_input()
            async for event in stream:
                frames.append(event.frame)  # noqa: PERF401 - as the session reads it
        assert words_in(frames) == TEXT.split()
        assert sorted(end for _, end in link.ends()) == ["abandoned", "ok"]
        await guarded.aclose()
        await voices[0].aclose()


async def test_the_rest_of_words_that_were_heard_has_a_latency_budget_of_its_own() -> None:
    async with SimulatorServer(options=Options(tts_speed=30.0)) as sim, aiohttp.ClientSession() as http:
        voice = cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=http)
        link = NotedLink()
        link.deadlines(CARTESIA, first_output_ms=30_000, stall_ms=10_000)
        guarded = GuardedTTS([voice], link, options=GuardOptions(latency_budget_ms=1000))
        sim.set_fault("tts", "cartesia", "cut", after_chunks=20, share=0.5)
        assert words_in(await say(guarded, TEXT)) == TEXT.split(), "takes the good half of the share"
        sim.stand.options = Options(tts_speed=1.0)  # so that the cut comes when the budget is spent
        assert words_in(await say(guarded, TEXT)) == TEXT.split()
        assert link.ends() == [(CARTESIA, "ok"), (CARTESIA, "cut"), (CARTESIA, "ok")]
        await guarded.aclose()
        await voice.aclose()
