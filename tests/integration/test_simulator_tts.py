"""The real voices of Groq, OpenAI and Cartesia against the stand-ins, healthy and with every fault."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError, tts
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.agents.voice.io import TimedString

from tests.support.simulated import ONCE, TEXT, opened, samples, say, words_in
from tests.support.waiting import wait_until
from worker.simulator import SimulatorServer
from worker.simulator.plugins import cartesia_tts, groq_tts, openai_tts

Build = Callable[..., tts.TTS[Any]]


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def build(sim: SimulatorServer, session: aiohttp.ClientSession) -> Callable[[str], tts.TTS[Any]]:
    def make(provider: str) -> tts.TTS[Any]:
        if provider == "openai":
            return openai_tts(sim.url)
        return {"groq": groq_tts, "cartesia": cartesia_tts}[provider](sim.url, session=session)

    return make


EACH = pytest.mark.parametrize("provider", ["groq", "openai", "cartesia"])


@EACH
async def test_every_word_is_heard(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    async with opened(build(provider)) as voice:
        assert words_in(await say(voice)) == TEXT.split()
    (request,) = sim.requests(role="tts")
    assert (request["provider"], request["model"], request["status"]) == (provider, voice.model, 200)


async def test_cartesia_over_http_too(sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]]) -> None:
    async with opened(build("cartesia")) as voice:
        frame: rtc.AudioFrame = await voice.synthesize(TEXT, conn_options=ONCE).collect()
    assert words_in([frame]) == TEXT.split()
    assert sim.requests()[0]["kind"] == "speech"


async def test_openai_in_other_formats(sim: SimulatorServer) -> None:
    from livekit.plugins import openai

    for kind in ("wav", "pcm", "flac"):
        async with opened(
            openai.TTS(base_url=sim.base_url("openai"), api_key="k", response_format=kind)
        ) as voice:
            assert words_in(await say(voice)) == TEXT.split()


async def test_word_times_are_where_the_words_are(build: Callable[[str], tts.TTS[Any]]) -> None:
    async with opened(build("cartesia")) as voice:
        frames = await say(voice)
    times: list[TimedString] = [
        t for frame in frames for t in frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, [])
    ]
    assert [str(time).strip() for time in times] == TEXT.split()
    duration_s = len(samples(frames)) / frames[0].sample_rate
    ends: list[Any] = [time.end_time for time in times]
    assert ends == sorted(ends)
    assert abs(ends[-1] - duration_s) < 0.03


@EACH
@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_status_at_the_start(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str, status: int
) -> None:
    sim.set_fault("tts", provider, "status", status=status)
    async with opened(build(provider)) as voice:
        with pytest.raises(APIStatusError) as caught:
            await say(voice)
    assert caught.value.status_code == status
    assert sim.requests(role="tts")[0]["status"] == status


async def test_a_status_on_a_pooled_socket_comes_inside(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]]
) -> None:
    async with opened(build("cartesia")) as voice:
        await say(voice, "First.")
        sim.clear_requests()
        sim.set_fault("tts", "cartesia", "status", status=429)
        with pytest.raises(APIError):  # the plugin swallows the event itself: there is just no sound
            await say(voice)
    (request,) = sim.requests(role="tts")
    assert (request["kind"], request["status"], request["fault"]) == ("context", 429, "status")


async def test_the_event_inside_a_socket_is_cartesias(
    sim: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    url = sim.base_url("cartesia") + "/tts/websocket?cartesia_version="
    message = {
        "model_id": "sonic-3",
        "voice": {"mode": "id", "id": "v"},
        "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24000},
        "context_id": "c1",
        "transcript": "Hello. ",
        "continue": False,
    }
    events: dict[str, Any] = {}
    for version in ("2025-04-16", "2026-03-01"):
        sim.clear_faults()
        async with session.ws_connect(url + version, headers={"X-API-Key": "k"}) as socket:
            sim.set_fault("tts", "cartesia", "status", status=429, model="sonic-3")
            await socket.send_json(message)
            events[version] = await socket.receive_json(timeout=3)
    assert events["2025-04-16"]["error"]
    assert events["2026-03-01"]["error_code"] == "concurrency_limited"
    for event in events.values():
        assert (event["type"], event["done"], event["status_code"], event["context_id"]) == (
            "error",
            True,
            429,
            "c1",
        )


@EACH
async def test_a_hang_gives_no_sound(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "hang")
    frames: list[rtc.AudioFrame] = []
    async with opened(build(provider)) as voice:
        if provider == "cartesia":
            with pytest.raises(APITimeoutError):
                await say(voice, into=frames)
        else:  # these plugins wait 30 s for the first byte: leave as the session would
            stream = cast("Any", voice.synthesize)(TEXT, conn_options=ONCE)
            await wait_until(lambda: sim.requests(role="tts"), "the request has come in")
            await stream.aclose()
    assert frames == []
    await wait_until(lambda: sim.requests(role="tts")[0]["outcome"] == "abandoned", "it is noted")


@EACH
async def test_slow_speaks_in_the_end(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "slow", delay_s=0.4)
    async with opened(build(provider)) as voice:
        assert words_in(await say(voice)) == TEXT.split()
    assert sim.requests(role="tts")[0]["first_output_ms"] >= 400


@EACH
async def test_a_cut_ends_in_mid_speech(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "cut", after_chunks=8)
    frames: list[rtc.AudioFrame] = []
    async with opened(build(provider)) as voice:
        with pytest.raises(APIError):
            await say(voice, into=frames)
    heard = words_in(frames)
    assert heard == TEXT.split()[: len(heard)]
    assert len(heard) < len(TEXT.split())
    assert sim.requests(role="tts")[0]["outcome"] == "fault"


@EACH
async def test_silent_is_zeros(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "silent")
    async with opened(build(provider)) as voice:
        frames = await say(voice)
    assert len(samples(frames)) / frames[0].sample_rate > 1.0
    assert int(abs(samples(frames)).max()) <= 1


@EACH
async def test_empty_is_no_sound_at_all(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "empty")
    frames: list[rtc.AudioFrame] = []
    async with opened(build(provider)) as voice:
        with pytest.raises(APIError, match="no audio frames"):
            await say(voice, into=frames)
    assert frames == []
    assert sim.requests(role="tts")[0]["status"] in (200, None)


@EACH
async def test_refuse_gives_no_response(
    sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]], provider: str
) -> None:
    sim.set_fault("tts", provider, "refuse")
    async with opened(build(provider)) as voice:
        with pytest.raises(APIConnectionError):
            await say(voice)


@EACH
async def test_a_bad_key_is_refused(
    sim: SimulatorServer, session: aiohttp.ClientSession, provider: str
) -> None:
    if provider == "openai":
        voice: tts.TTS[Any] = openai_tts(sim.url, api_key="bad")
    else:
        voice = {"groq": groq_tts, "cartesia": cartesia_tts}[provider](
            sim.url, api_key="bad", session=session
        )
    async with opened(voice):
        with pytest.raises(APIStatusError) as caught:
            await say(voice)
    assert caught.value.status_code == 401


async def test_contexts_share_a_socket_and_do_not_mix(build: Callable[[str], tts.TTS[Any]]) -> None:
    async with opened(build("cartesia")) as voice:
        for text in ("One two three.", "Four five six.", "Seven eight nine."):
            assert words_in(await say(voice, text)) == text.split()


async def test_a_share_is_of_contexts(sim: SimulatorServer, build: Callable[[str], tts.TTS[Any]]) -> None:
    sim.set_fault("tts", "cartesia", "status", status=500, share=0.5)
    outcomes: list[bool] = []
    for _ in range(4):
        async with opened(build("cartesia")) as voice:
            try:
                await say(voice, "One two.")
                outcomes.append(True)
            except APIError:
                outcomes.append(False)
    assert outcomes == [True, False, True, False]
