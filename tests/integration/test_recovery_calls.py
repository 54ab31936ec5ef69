"""Audio calls in trouble: what the caller hears, decoded from the sound."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import numpy as np
import pytest
from livekit.agents import Agent, AgentSession, inference, stt, tts

from supervisor.wire.vocabulary import Role
from tests.support.sessions import AudioCall, audio_call
from tests.support.waiting import wait_until
from worker.recovery import setup_error_handling
from worker.recovery.audio import write_file
from worker.recovery.own_voice import OwnVoice, VoiceCache
from worker.recovery.phrases import shipped
from worker.recovery.sounds import recording
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.callers import Caller, Manners, Turn
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm, groq_stt, groq_tts

SHORT = (12, 12)


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=SHORT)) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


def services(sim: SimulatorServer, http: aiohttp.ClientSession) -> dict[str, Any]:
    return {
        "stt": cartesia_stt(sim.url, session=http),
        "llm": groq_llm(sim.url),
        "tts": cartesia_tts(sim.url, session=http),
    }


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def answered(turn: Turn) -> bool:
    return turn.heard == answer_for(turn.said, shortest=SHORT[0], longest=SHORT[1]).split()


async def own_voice_ready(call: AudioCall) -> None:
    texts = [*shipped("en")["tts"], *shipped("en")["final"]]
    await wait_until(
        lambda: all(call.manager.own_voice.get([text]) for text in texts), "own voice is made", 15
    )


async def test_llm_dead_the_apology_is_spoken_with_the_voice(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with audio_call(**services(sim, http), cache_dir=tmp_path) as call:
        turn = await call.turn()
        assert turn.heard in words(*shipped("en")["llm"])
        assert turn.dead_air_s is not None


async def test_tts_dead_the_apology_comes_in_the_own_voice_and_the_next_call_has_it_from_disk(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with audio_call(**services(sim, http), cache_dir=tmp_path) as call:
        assert answered(await call.turn())
        await own_voice_ready(call)
        sim.set_fault("tts", "cartesia", "refuse")
        turn = await call.turn()
        assert turn.heard in words(*shipped("en")["tts"])
        stats = call.manager.get_error_stats()
        assert (stats, stats["apologies"]) == ({"llm": 0, "tts": 1, "stt": 0}, 1)
    made = len(sim.requests(role="tts", kind="bytes"))
    async with audio_call(**services(sim, http), cache_dir=tmp_path) as call:
        turn = await call.turn()
        assert turn.heard in words(*shipped("en")["tts"]), "the voice never worked in this call"
    assert len(sim.requests(role="tts", kind="bytes")) == made


async def test_a_sound_that_had_to_wait_for_another_call_waits_for_a_quiet_moment_too(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    other, own = VoiceCache(tmp_path), OwnVoice(VoiceCache(tmp_path))
    assert other.lock()
    quiet, asked = asyncio.Event(), list[bool]()
    quiet.set()

    async def calm() -> bool:
        asked.append(quiet.is_set())
        await quiet.wait()
        return True

    voice = cartesia_tts(sim.url, session=http)
    making = asyncio.create_task(own.prepare(voice, ["Sorry."], "en", calm))
    await wait_until(lambda: asked, "it may begin, but for the other call")
    quiet.clear()
    other.unlock()
    await wait_until(lambda: False in asked, "it asks again")
    assert sim.requests(role="tts") == []
    quiet.set()
    assert await making


def tone(file: Path, seconds: float) -> Path:
    at = np.arange(round(seconds * 16_000)) / 16_000
    write_file(file, (8000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16).tobytes(), 16_000)
    return file


async def test_everything_dead_every_turn_is_answered_and_the_end_is_graceful(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    for role, provider in (("llm", "groq"), ("tts", "cartesia")):
        sim.set_fault(role, provider, "status", status=500)
    async with audio_call(
        **services(sim, http),
        max_retries=1,
        custom_audio_path=tone(tmp_path / "sorry.mp3", 0.5),
        final_audio_path=tone(tmp_path / "bye.flac", 1.5),
        own_voice=False,
    ) as call:
        first, last = await call.turn(), await call.turn()
        for turn, seconds in ((first, 0.5), (last, 1.5)):
            assert turn.heard == [], "a file of ours, not the voice"
            assert turn.answer_s == pytest.approx(seconds, abs=0.3)
            assert turn.dead_air_s is not None
        await wait_until(lambda: call.closed, "the session closes", 10)
        assert call.closed[0].error is None
        assert call.manager.report().outcome == "gave_up"


@pytest.mark.parametrize("fault", ["status", "refuse", "hang"])
async def test_the_final_message_is_heard_when_the_voice_dies_with_the_model(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path, fault: str
) -> None:
    """That the voice is dead is not known before its last words were to be said."""
    sim.set_fault("llm", "groq", "status", status=500)
    sim.set_fault("tts", "cartesia", fault)
    async with audio_call(**services(sim, http), max_retries=0, cache_dir=tmp_path, own_voice=False) as call:
        turn = await call.turn()
        assert turn.answer_s == pytest.approx(recording("en", "final").seconds, abs=0.6)
        await wait_until(lambda: call.closed, "the session closes", 10)
        assert call.closed[0].error is None
        assert (call.manager.report().final_messages, call.manager.report().outcome) == (1, "gave_up")


async def test_stt_dead_the_caller_is_asked_again_and_heard_when_it_is_back(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("stt", "cartesia", "silent")
    async with audio_call(**services(sim, http), cache_dir=tmp_path) as call:
        turn = await call.turn()
        assert turn.heard in words(*shipped("en")["stt"])
        assert call.manager.get_error_stats()["in_a_row"]["stt"] == 1
        sim.clear_faults()
        assert answered(await call.turn())
        stats = call.manager.get_error_stats()
        assert (stats["stt"], stats["in_a_row"]["stt"]) == (1, 0), (
            "words were understood: `user_speech_committed`"
        )
        assert call.closed == []


async def test_a_voice_that_works_again_is_a_success_and_our_recording_is_none(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """What `agent_speech_committed` meant: an answer was heard to its end."""
    sim.set_fault("tts", "cartesia", "refuse")
    async with audio_call(**services(sim, http), cache_dir=tmp_path, own_voice=False) as call:
        turn = await call.turn()
        assert turn.heard == [], "the shipped recording, not the voice"
        assert turn.answer_s == pytest.approx(recording("en", "apology").seconds, abs=0.6)
        assert call.manager.get_error_stats()["in_a_row"]["tts"] == 1
        sim.clear_faults()
        assert answered(await call.turn())
        await wait_until(lambda: call.manager.get_error_stats()["in_a_row"]["tts"] == 0, "the count is reset")
        assert call.manager.get_error_stats()["tts"] == 1


@pytest.mark.parametrize("level", ["session", "agent"])
async def test_adapters_of_recognisers_and_voices_give_their_children(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path, level: str
) -> None:
    parts = services(sim, http)
    adapters: dict[str, Any] = {
        "stt": stt.FallbackAdapter([parts["stt"], groq_stt(sim.url)], vad=inference.VAD()),
        "tts": tts.FallbackAdapter([parts["tts"], groq_tts(sim.url, session=http)]),
    }
    given, agent = parts | adapters, None
    if level == "agent":
        given, agent = parts, Agent(instructions="Answer.", **adapters)
    for role in ("stt", "tts"):
        sim.set_fault(role, "cartesia", "refuse")
    async with audio_call(**given, agent=agent, cache_dir=tmp_path, own_voice=False) as call:
        assert answered(await call.turn())
        stats = call.manager.get_error_stats()
        assert stats["failovers"] >= 2
        assert (stats["total"], stats["apologies"]) == (0, 0)


@pytest.mark.parametrize("moment", ["listening", "thinking", "speaking"])
async def test_callers_who_hang_up_are_no_faults(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path, moment: str
) -> None:
    if moment == "thinking":
        sim.set_fault("llm", "groq", "slow", delay_s=20)
    async with audio_call(**services(sim, http), cache_dir=tmp_path, own_voice=False) as call:
        talking = asyncio.ensure_future(call.caller.run(turns=1))
        await wait_until(
            lambda: (
                call.session.user_state == "speaking"
                if moment == "listening"
                else call.session.agent_state == moment
            ),
            f"the call is at {moment}",
            10,
        )
        await call.session.aclose()
        talking.cancel()
        await asyncio.wait({talking})
    stats = call.manager.get_error_stats()
    assert (stats["total"], stats["apologies"], stats["outcome"]) == (0, 0, "ok")
    assert call.manager.report().faults == {}


async def test_a_hanging_recogniser_that_does_not_stream_costs_no_word(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Nothing comes of it before the end of speech, and then the deaf watchdog's time is nearly up."""
    sim.set_fault("stt", "groq", "hang")
    parts = services(sim, http)
    parts["stt"] = stt.FallbackAdapter([groq_stt(sim.url), parts["stt"]], vad=inference.VAD())
    async with audio_call(**parts, cache_dir=tmp_path) as call:
        turn = await call.turn()
        # A busy machine may be so late that the watchdog apologises first: the words are there all the same.
        await wait_until(lambda: call.session.history.messages(), "something was understood")
        assert [m.text_content for m in call.session.history.messages() if m.role == "user"] == [turn.said]
        assert call.closed == []


class Deaf(Agent):
    """An agent whose own STT node hears nothing."""

    def __init__(self) -> None:
        super().__init__(instructions="Deaf.")
        self.streams = 0

    async def stt_node(self, audio: Any, model_settings: Any) -> AsyncIterator[Any]:
        del model_settings
        self.streams += 1
        async for _ in audio:
            continue
        yield ""  # pragma: no cover - never reached while the call lasts


async def test_the_deaf_watchdog_gives_the_session_a_fresh_stream(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    agent = Deaf()
    async with audio_call(**services(sim, http), agent=agent, cache_dir=tmp_path) as call:
        turn = await call.turn()
        assert turn.heard in words(*shipped("en")["stt"])
        await wait_until(lambda: agent.streams == 2, "a fresh stream")
        assert call.manager.get_error_stats()["in_a_row"]["stt"] == 0, "no service can be blamed"


async def test_a_running_session_gets_guards_without_losing_a_word(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    session: AgentSession[Any] = AgentSession(**services(sim, http), turn_handling={"turn_detection": "vad"})
    caller = Caller("bo", manners=Manners(patience_s=6.0, pause_s=0.1))
    caller.attach(session)
    await cast("Any", session).start(Agent(instructions="Answer."))
    running = caller.run(turns=2)
    manager = setup_error_handling(session, cache_dir=tmp_path)
    try:
        await running
        assert [answered(turn) for turn in caller.turns] == [True, True]
        guards = {type(guard).__name__ for guard in cast("Any", manager)._guard.guards}
        assert guards == {"GuardedLLM", "GuardedSTT", "GuardedTTS"}
        assert manager.link.successes[Role.TTS] == 2
    finally:
        await session.aclose()
        await caller.aclose()
