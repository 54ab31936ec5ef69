"""The voice is dead: what is played in its place, in which words and language, and who is not asked again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import Agent

from tests.support.noted_link import NotedLink
from tests.support.sessions import AudioCall, audio_call
from tests.support.waiting import wait_until
from worker.recovery import setup_error_handling
from worker.recovery.audio import write_file
from worker.recovery.phrases import shipped
from worker.recovery.sounds import recording, recordings
from worker.settings import read_settings
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm, groq_tts
from worker.simulator.wordcode import speak


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
def services(sim: SimulatorServer, http: aiohttp.ClientSession) -> dict[str, Any]:
    return {
        "stt": cartesia_stt(sim.url, session=http),
        "llm": groq_llm(sim.url),
        "tts": cartesia_tts(sim.url, session=http),
    }


def voices_asked(link: NotedLink) -> int:
    return sum(target.startswith("tts:") for target, _ in link.ends())


def added(call: AudioCall) -> list[str]:
    """What the model is told that was said on its behalf."""
    return [m.text_content or "" for m in call.session.history.messages() if m.role == "assistant"]


async def test_a_dead_voice_is_not_asked_to_apologise_for_the_model(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    """A recording that was played in its place is no sign that it is back."""
    link = NotedLink()
    sim.set_fault("tts", "cartesia", "status", status=500)
    async with audio_call(**services, link=link, cache_dir=tmp_path, own_voice=False) as call:
        assert (await call.turn()).dead_air_s is not None
        asked = voices_asked(link)
        assert asked > 0
        sim.set_fault("llm", "groq", "status", status=500)
        turn = await call.turn()
        assert (turn.heard, turn.dead_air_s is not None) == ([], True), "a recording"
        assert call.manager.get_error_stats() == {"llm": 1, "tts": 1, "stt": 0}
        assert voices_asked(link) == asked


async def test_words_of_ours_that_do_not_sound_are_played_from_a_recording(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    """The voice hangs just when it is needed: nobody has noticed yet that it is gone."""
    link = NotedLink()
    link.rule("tts:cartesia:sonic-3", first_output_ms=30_000)  # nor does anybody soon
    sim.set_fault("llm", "groq", "status", status=500)
    sim.set_fault("tts", "cartesia", "hang")
    async with audio_call(**services, link=link, cache_dir=tmp_path, own_voice=False) as call:
        turn = await call.turn()
        assert (turn.heard, turn.dead_air_s is not None) == ([], True), "a recording"
        stats = call.manager.get_error_stats()
        assert (stats, stats["apologies"]) == ({"llm": 1, "tts": 0, "stt": 0}, 1), "the same apology"


async def test_after_a_long_wait_words_that_were_made_before_are_played(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    link = NotedLink()
    link.rule("llm:groq:llama-3.3-70b-versatile", first_output_ms=10_000)
    async with audio_call(**services, link=link, cache_dir=tmp_path) as call:
        await call.turn()
        texts = shipped("en")["llm"]
        await wait_until(
            lambda: all(call.manager.own_voice.get([text]) for text in texts), "own voice is made"
        )
        asked = voices_asked(link)
        sim.set_fault("llm", "groq", "hang")
        assert (await call.turn()).heard in [text.split() for text in texts]
        assert voices_asked(link) == asked


async def test_words_of_the_users_own_for_each_role(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    async with audio_call(**services, cache_dir=tmp_path) as call:
        call.manager.fallback_messages["tts"] = ["My voice was away."]
        call.manager.fallback_messages["stt"] = ["Your words were away."]
        turn = await call.turn()
        assert turn.heard == answer_for(turn.said, shortest=12, longest=12).split()
        await wait_until(lambda: call.manager.own_voice.get(["My voice was away."]), "own voice is made")
        sim.set_fault("stt", "cartesia", "silent")
        assert (await call.turn()).heard == ["Your", "words", "were", "away."]
        sim.clear_faults()
        sim.set_fault("tts", "cartesia", "refuse")
        assert (await call.turn()).heard == ["My", "voice", "was", "away."]


async def test_a_recording_in_the_callers_language(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    services["tts"].update_options(language="de")
    sim.set_fault("tts", "cartesia", "refuse")
    async with audio_call(**services, add_to_chat_ctx=True, cache_dir=tmp_path, own_voice=False) as call:
        turn = await call.turn()
        assert turn.answer_s == pytest.approx(recording("de", "apology").seconds, abs=0.6)
        await wait_until(lambda: recordings()["de"]["apology"] in added(call), "it is in the context")


def sound(file: Path) -> Path:
    """Somebody saying a few words."""
    pcm, _ = speak(["please", "wait", "here"], 16_000)
    write_file(file, pcm.tobytes(), 16_000)
    return file


@pytest.mark.parametrize("how", ["in the settings", "at the second time"])
async def test_a_file_of_the_users_own_wherever_it_is_named(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path, how: str
) -> None:
    file = sound(tmp_path / "wait.flac")
    settings = read_settings(error_audio=str(file)) if how == "in the settings" else None
    sim.set_fault("tts", "cartesia", "refuse")
    async with audio_call(**services, settings=settings, cache_dir=tmp_path, own_voice=False) as call:
        if how == "at the second time":
            setup_error_handling(call.session, custom_audio_path=file)
        assert (await call.turn()).heard == ["please", "wait", "here"]


async def test_no_goodbye_is_played_where_the_call_stays(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    sim.set_fault("tts", "cartesia", "refuse")
    given: dict[str, Any] = {"max_retries": 0, "on_exhausted": "stay", "add_to_chat_ctx": True}
    async with audio_call(**services, **given, cache_dir=tmp_path, own_voice=False) as call:
        assert (await call.turn()).dead_air_s is not None
        await wait_until(lambda: recordings()["en"]["apology"] in added(call), "it is in the context")
        assert recordings()["en"]["final"] not in added(call)
        assert call.closed == []


class Mute(Agent):
    """Its own voice node makes no sound at all, and says nothing of it."""

    async def tts_node(self, text: Any, model_settings: Any) -> AsyncIterator[rtc.AudioFrame]:
        del model_settings
        async for _ in text:
            continue
        return
        yield  # a generator


async def test_an_answer_that_never_sounded_is_apologised_for(
    services: dict[str, Any], tmp_path: Path
) -> None:
    async with audio_call(
        **services, agent=Mute(instructions="Mute."), cache_dir=tmp_path, own_voice=False
    ) as call:
        assert (await call.turn()).dead_air_s is not None
        assert call.manager.get_error_stats()["by_kind"] == {"tts": {"silent": 1}}


async def test_an_agent_with_another_voice_gets_its_messages_in_that(
    sim: SimulatorServer, http: aiohttp.ClientSession, services: dict[str, Any], tmp_path: Path
) -> None:
    async with audio_call(**services, cache_dir=tmp_path) as call:
        text = shipped("en")["tts"][0]
        await call.turn()
        before = await wait_until(lambda: call.manager.own_voice.get([text]), "own voice is made")
        call.session.update_agent(Agent(instructions="Colleague.", tts=groq_tts(sim.url, session=http)))
        await wait_until(
            lambda: call.manager.own_voice.get([text]) not in (None, before), "the other voice has made it"
        )


async def test_a_call_without_any_voice_hears_a_recording(
    sim: SimulatorServer, services: dict[str, Any], tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    services["tts"] = None
    async with audio_call(**services, cache_dir=tmp_path) as call:
        turn = await call.turn()
        assert (turn.heard, turn.dead_air_s is not None) == ([], True)
        assert call.manager.get_error_stats() == {"llm": 1, "tts": 0, "stt": 0}
