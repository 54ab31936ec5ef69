"""What is set from outside, and what the caller's language makes of it: settings, environment, plugins, recognisers."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from livekit.agents import AgentSession
from livekit.agents.voice.events import UserInputTranscribedEvent
from livekit.plugins import cartesia

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.noted_link import NotedLink
from tests.support.sessions import text_call
from worker.guard.routing import GuardOptions
from worker.recovery import AudioFileError, ErrorRecoveryManager, setup_error_handling
from worker.recovery.phrases import shipped
from worker.settings import read_settings
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import base_url, groq_llm, openai_llm


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


def set_up(sim: SimulatorServer, **given: Any) -> ErrorRecoveryManager:
    return setup_error_handling(AgentSession(llm=groq_llm(sim.url), vad=None), own_voice=False, **given)


async def test_the_environment_is_read_and_the_code_wins(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (
        ("MAX_RETRIES", "7"),
        ("ON_EXHAUSTED", "stay"),
        ("LANGUAGE", "de"),
        ("LOG_EMOJI", "true"),
        ("AUDIO_CACHE_DIR", str(tmp_path)),
        ("HEDGE", "false"),
        ("LATENCY_BUDGET_MS", "1234"),
        ("CONTINUE_ANSWERS", "false"),
    ):
        monkeypatch.setenv(f"WORKER_{name}", value)
    manager = set_up(sim)
    session = cast("Any", manager.session)
    assert manager.counters.limit(Role.LLM, FaultKind.SERVER) == 7
    assert (manager.options.on_exhausted, manager.options.emoji) == ("stay", True)
    assert (manager.fallback_messages.language, manager.options.cache_dir) == ("de", str(tmp_path))
    assert session.llm.guard.options == GuardOptions(latency_budget_ms=1234, hedge=False)
    assert session.llm.continue_answers is False
    await manager.aclose()
    manager = set_up(sim, max_retries=3, on_exhausted="close", language="fr")
    assert manager.counters.limit(Role.LLM, FaultKind.SERVER) == 3
    assert (manager.options.on_exhausted, manager.fallback_messages.language) == ("close", "fr")
    await manager.aclose()


async def test_a_manager_made_by_hand_reads_the_environment_too(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MAX_RETRIES", "7"), ("ON_EXHAUSTED", "stay"), ("LOG_EMOJI", "true")):
        monkeypatch.setenv(f"WORKER_{name}", value)
    manager = ErrorRecoveryManager(own_voice=False)
    manager.attach(AgentSession(llm=groq_llm(sim.url), vad=None))
    assert manager.counters.limit(Role.LLM, FaultKind.SERVER) == 7
    assert (manager.options.on_exhausted, manager.options.emoji) == ("stay", True)
    await manager.aclose()
    assert ErrorRecoveryManager(max_retries=2).counters.limit(Role.LLM, FaultKind.SERVER) == 2


async def test_a_wrong_environment_ends_no_call(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKER_MAX_RETRIES", "many")
    manager = set_up(sim)
    assert manager.counters.limit(Role.LLM, FaultKind.SERVER) == 3
    assert "WORKER_MAX_RETRIES" in capsys.readouterr().out
    await manager.aclose()


async def test_a_wrong_error_audio_of_the_settings_leaves_no_call_unguarded(
    sim: SimulatorServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    settings = read_settings(error_audio="/nowhere/sorry.wav")
    async with text_call(groq_llm(sim.url), settings=settings, link=NotedLink()) as call:
        assert await call.ask("Hello?") in shipped("en")["llm"]
    out = capsys.readouterr().out
    assert "there is no such file" in out
    assert "/nowhere" not in out
    with pytest.raises(AudioFileError):
        set_up(sim, custom_audio_path="/nowhere/sorry.wav")


# ------------------------------------------------------------------ language


def voice(sim: SimulatorServer, language: str) -> cartesia.TTS:
    return cartesia.TTS(base_url=base_url(sim.url, "cartesia"), api_key="k", language=language)


async def test_the_voices_own_language_is_kept(sim: SimulatorServer) -> None:
    session: AgentSession[Any] = AgentSession(llm=groq_llm(sim.url), tts=voice(sim, "de"), vad=None)
    manager = setup_error_handling(session, own_voice=False)
    assert manager.fallback_messages.language == "de"
    for _ in range(3):
        heard(session, "fr")
    assert manager.fallback_messages.language == "de"
    await manager.aclose()


async def test_a_language_without_messages_says_nothing(sim: SimulatorServer) -> None:
    session: AgentSession[Any] = AgentSession(llm=groq_llm(sim.url), tts=voice(sim, "xx"), vad=None)
    manager = setup_error_handling(session, own_voice=False)
    assert manager.fallback_messages.language == "en"
    await manager.aclose()


def heard(session: AgentSession[Any], language: str, *, final: bool = True) -> None:
    event = UserInputTranscribedEvent(transcript="some words", is_final=final, language=cast("Any", language))
    cast("Any", session).emit("user_input_transcribed", event)


async def test_the_callers_language_is_believed_when_it_is_heard_twice(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url)) as call:
        for language, final, then in (
            ("fr", False, "en"),
            ("fr", True, "en"),
            ("de", True, "en"),
            ("fr", True, "en"),
            ("fr", True, "fr"),
            ("multi", True, "fr"),
            ("multi", True, "fr"),
        ):
            heard(call.session, language, final=final)
            assert call.manager.fallback_messages.language == then
        assert await call.ask("Allo?") in shipped("fr")["llm"]


# ------------------------------------------------------------------ reports


async def test_staying_after_final_messages_is_no_good_outcome(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with text_call(groq_llm(sim.url), max_retries=0, on_exhausted="stay") as call:
        assert await call.ask("Hello?") in shipped("en")["final.stay"]
        assert call.manager.report().outcome == "gave_up"


async def test_handled_are_the_faults_that_no_caller_noticed(sim: SimulatorServer) -> None:
    from livekit.agents import llm

    adapter = llm.FallbackAdapter([groq_llm(sim.url), openai_llm(sim.url)])
    sim.set_fault("llm", "groq", "status", status=401)
    async with text_call(adapter) as call:
        await call.ask("Hello?")
        sim.clear_faults()
        sim.set_fault("llm", "openai", "status", status=500)
        sim.set_fault("llm", "groq", "status", status=500)
        before = call.manager.report().faults["llm"].get("server", 0)
        await call.ask("And now?")
        stats, faults = call.manager.get_error_stats(), call.manager.report().faults["llm"]
        assert stats["handled"]["llm"].get("server", 0) == faults["server"] - before - 1
        assert stats["handled"]["llm"]["authentication"] == 1
