"""The real recognisers of Groq, OpenAI and Cartesia against the stand-ins, healthy and with every fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError, stt
from livekit.agents.stt import SpeechEventType

from tests.support.simulated import ONCE, TEXT, quiet, spoken, until
from tests.support.waiting import wait_until
from worker.simulator import SimulatorServer
from worker.simulator.plugins import cartesia_stt, groq_stt, openai_stt

HTTP = {"groq": groq_stt, "openai": openai_stt}
EACH_HTTP = pytest.mark.parametrize("provider", sorted(HTTP))
EACH_MODEL = pytest.mark.parametrize("model", ["ink-2", "ink-whisper"])
FINAL = SpeechEventType.FINAL_TRANSCRIPT


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def build(sim: SimulatorServer, session: aiohttp.ClientSession) -> Callable[[str], stt.STT[Any]]:
    return lambda model: cartesia_stt(sim.url, model, session=session)


def final_of(events: list[stt.SpeechEvent]) -> str:
    finals = [event for event in events if event.type is FINAL]
    return finals[-1].alternatives[0].text if finals else ""


@EACH_HTTP
@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
async def test_an_upload_is_transcribed(sim: SimulatorServer, provider: str, sample_rate: int) -> None:
    recogniser = HTTP[provider](sim.url)
    event = await recogniser.recognize(spoken(sample_rate=sample_rate), conn_options=ONCE)
    assert event.alternatives[0].text == TEXT
    (request,) = sim.requests(role="stt")
    assert (request["provider"], request["model"], request["status"]) == (provider, recogniser.model, 200)


@EACH_HTTP
@pytest.mark.parametrize("status", [401, 429, 498, 500])
async def test_an_upload_meets_a_status(sim: SimulatorServer, provider: str, status: int) -> None:
    sim.set_fault("stt", provider, "status", status=status)
    with pytest.raises(APIStatusError) as caught:
        await HTTP[provider](sim.url).recognize(spoken(), conn_options=ONCE)
    assert caught.value.status_code == status


@EACH_HTTP
@pytest.mark.parametrize("fault", ["cut", "refuse"])
async def test_an_upload_is_broken_off(sim: SimulatorServer, provider: str, fault: str) -> None:
    sim.set_fault("stt", provider, fault)
    with pytest.raises(APIConnectionError):
        await HTTP[provider](sim.url).recognize(spoken(), conn_options=ONCE)


@EACH_HTTP
@pytest.mark.parametrize("fault", ["silent", "empty"])
async def test_an_upload_has_no_words(sim: SimulatorServer, provider: str, fault: str) -> None:
    sim.set_fault("stt", provider, fault)
    event = await HTTP[provider](sim.url).recognize(spoken(), conn_options=ONCE)
    assert event.alternatives[0].text == ""


@EACH_HTTP
async def test_an_upload_hangs(sim: SimulatorServer, provider: str) -> None:
    sim.set_fault("stt", provider, "hang")
    recognising = asyncio.ensure_future(HTTP[provider](sim.url).recognize(spoken(), conn_options=ONCE))
    await wait_until(lambda: sim.requests(role="stt"), "the upload has come in")
    recognising.cancel()  # the plugin would wait 30 s
    await wait_until(lambda: sim.requests()[0]["outcome"] == "abandoned", "it is noted")


@EACH_MODEL
async def test_a_stream_is_transcribed(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]], model: str
) -> None:
    async with build(model).stream(conn_options=ONCE) as stream:
        for _ in range(2):
            stream.push_frame(spoken())
            stream.push_frame(quiet(0.6))
            events = await until(stream, SpeechEventType.END_OF_SPEECH)
            assert final_of(events) == TEXT
            assert events[0].type is SpeechEventType.START_OF_SPEECH
    assert [request["kind"] for request in sim.requests()] == ["connection", "utterance", "utterance"]
    assert {request["model"] for request in sim.requests()} == {model}


async def test_interims_grow_word_by_word(build: Callable[[str], stt.STT[Any]]) -> None:
    async with build("ink-2").stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        events = await until(stream, FINAL)
    interims = [
        event.alternatives[0].text for event in events if event.type is SpeechEventType.INTERIM_TRANSCRIPT
    ]
    assert interims == [" ".join(TEXT.split()[:count]) for count in range(1, len(TEXT.split()) + 1)]


async def test_whisper_gives_the_words_times(build: Callable[[str], stt.STT[Any]]) -> None:
    async with build("ink-whisper").stream(conn_options=ONCE) as stream:
        stream.push_frame(quiet(1.0))
        stream.push_frame(spoken("Amber bridge."))
        stream.push_frame(quiet(0.6))
        events = await until(stream, FINAL)
    words = events[-1].alternatives[0].words
    assert words is not None
    assert [str(word) for word in words] == ["Amber", "bridge."]
    ends = [word.end_time for word in words]
    assert ends == pytest.approx([1.26, 1.52], abs=0.01)


@EACH_MODEL
@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_handshake_meets_a_status(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]], model: str, status: int
) -> None:
    sim.set_fault("stt", "cartesia", "status", status=status)
    async with build(model).stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        with pytest.raises(APIStatusError) as caught:
            await until(stream, FINAL)
    assert caught.value.status_code == status
    assert sim.requests()[0]["status"] == status


@EACH_MODEL
@pytest.mark.parametrize("fault", ["status", "cut", "refuse"])
async def test_an_open_socket_is_hit_at_once(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]], model: str, fault: str
) -> None:
    async with build(model).stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        await until(stream, FINAL)
        sim.set_fault("stt", "cartesia", fault)
        with pytest.raises(APIConnectionError):
            await until(stream, FINAL)
    assert sim.requests(kind="connection")[0]["fault"] == fault
    await wait_until(lambda: sim.requests(kind="connection")[0]["outcome"] == "fault", "it is noted")


@EACH_MODEL
@pytest.mark.parametrize("fault", ["hang", "silent"])
async def test_no_word_comes_from_a_socket(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]], model: str, fault: str
) -> None:
    async with build(model).stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        await until(stream, SpeechEventType.END_OF_SPEECH)
        sim.set_fault("stt", "cartesia", fault)
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        await wait_until(lambda: len(sim.requests(kind="utterance")) == 2, "the utterance was heard")
        await wait_until(
            lambda: sim.requests(kind="utterance")[1]["outcome"] == "fault", "and not answered", 3
        )
        sim.clear_faults()
        stream.push_frame(spoken("Back again."))
        stream.push_frame(quiet(0.6))
        if fault == "silent":  # it comes back; a hung socket does not
            assert final_of(await until(stream, FINAL)) == "Back again."
            return
        await wait_until(lambda: len(sim.requests(kind="utterance")) == 3, "the utterance was heard")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(until(stream, FINAL), 0.4)


async def test_a_new_socket_hangs_too(sim: SimulatorServer, build: Callable[[str], stt.STT[Any]]) -> None:
    sim.set_fault("stt", "cartesia", "hang")
    async with build("ink-2").stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        await wait_until(lambda: sim.requests(kind="utterance"), "it hears")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(until(stream, FINAL), 0.4)


async def test_a_new_socket_is_cut_after_so_many_words(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]]
) -> None:
    sim.set_fault("stt", "cartesia", "cut", after_chunks=3)
    events: list[stt.SpeechEvent] = []
    with pytest.raises(APIConnectionError):  # noqa: PT012 - the stream is what raises
        async with build("ink-2").stream(conn_options=ONCE) as stream:
            stream.push_frame(spoken())
            async for event in stream:
                events.append(event)  # noqa: PERF401 - what came before the cut must be kept
    # The plugin makes a final transcript of what it has before it raises.
    assert final_of(events) == " ".join(TEXT.split()[:3])


@EACH_MODEL
async def test_slow_is_late_with_its_first_words(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]], model: str
) -> None:
    sim.set_fault("stt", "cartesia", "slow", delay_s=0.5)
    async with build(model).stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        assert final_of(await until(stream, FINAL)) == TEXT
    assert sim.requests(kind="utterance")[0]["first_output_ms"] >= 480


async def test_empty_ends_a_turn_without_words(
    sim: SimulatorServer, build: Callable[[str], stt.STT[Any]]
) -> None:
    sim.set_fault("stt", "cartesia", "empty")
    async with build("ink-2").stream(conn_options=ONCE) as stream:
        stream.push_frame(spoken())
        stream.push_frame(quiet(0.6))
        assert final_of(await until(stream, SpeechEventType.END_OF_SPEECH)) == ""


async def test_a_bad_key_is_refused(sim: SimulatorServer, session: aiohttp.ClientSession) -> None:
    with pytest.raises(APIStatusError) as caught:
        async with cartesia_stt(sim.url, api_key="bad", session=session).stream(conn_options=ONCE) as stream:
            await until(stream, FINAL)
    assert caught.value.status_code == 401
    with pytest.raises(APIStatusError):
        await groq_stt(sim.url, api_key="bad").recognize(spoken(), conn_options=ONCE)


async def test_a_file_that_is_no_audio_is_an_error(
    sim: SimulatorServer, session: aiohttp.ClientSession
) -> None:
    form = aiohttp.FormData({"model": "whisper-large-v3"})
    form.add_field("file", b"not a wav", filename="file.wav")
    url = sim.base_url("groq") + "/audio/transcriptions"
    async with session.post(url, data=form, headers={"Authorization": "Bearer k"}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_the_stand_in_never_times_out_a_good_upload(sim: SimulatorServer) -> None:
    """A long recording is read at once, not in its own time."""
    text = " ".join(["Amber", *["bridge"] * 60])
    try:
        event = await groq_stt(sim.url).recognize(spoken(text), conn_options=ONCE)
    except APITimeoutError:  # pragma: no cover - what must not happen
        pytest.fail("the stand-in took too long")
    assert event.alternatives[0].text == text
