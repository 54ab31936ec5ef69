"""When apologies are spoken: in their turn, never over the caller, never twice; heard, not sent."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit.agents import Agent

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.sessions import AudioCall, audio_call
from tests.support.waiting import wait_until
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm
from worker.simulator.speech import sentences


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
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


MOMENT = "One moment please while I look that up for you in the big old book on my desk."


class Thorough(Agent):
    """Says that it will take a moment; its model is asked while that is being said."""

    async def on_user_turn_completed(self, turn_ctx: Any, new_message: Any) -> None:
        del turn_ctx, new_message
        self.session.say(MOMENT)

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[Any]:
        await wait_until(lambda: self.session.agent_state == "speaking", "the agent speaks", 20)
        async for chunk in Agent.default.llm_node(self, chat_ctx, tools, model_settings):
            yield chunk


async def test_an_apology_that_waits_its_turn_is_no_dead_voice(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    agent = Thorough(instructions="Answer.")
    async with audio_call(**services(sim, http), agent=agent, cache_dir=tmp_path, own_voice=False) as call:
        turn = await call.turn()
        assert turn.heard[: len(MOMENT.split())] == MOMENT.split()
        assert turn.heard[len(MOMENT.split()) :] in [text.split() for text in shipped("en")["llm"]]
        stats = call.manager.get_error_stats()
        assert (stats, stats["apologies"]) == ({"llm": 1, "tts": 0, "stt": 0}, 1)
        assert stats["handled"].get("tts") is None


def heard(call: AudioCall) -> list[str]:
    """All words of the call."""
    return [word.word for word in call.caller.ears.words_after(0.0)]


async def test_an_apology_waits_until_the_caller_has_spoken(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with audio_call(**services(sim, http), cache_dir=tmp_path, own_voice=False) as call:
        speaking = asyncio.create_task(call.turn())
        await wait_until(lambda: call.session.user_state == "speaking", "the caller speaks", 20)
        call.manager.error(Role.LLM, FaultKind.SERVER)
        turn = await speaking
        assert turn.overlap_s == 0.0
        assert turn.heard in [text.split() for text in shipped("en")["llm"]], "and once"


async def test_a_caller_can_interrupt_an_apology(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    async with audio_call(**services(sim, http), cache_dir=tmp_path, own_voice=False) as call:
        call.manager.fallback_messages["llm"] = [
            f"{MOMENT} {MOMENT} Thank you for waiting so long at the zoo."
        ]
        listening = asyncio.create_task(call.turn())
        await wait_until(lambda: call.caller.ears.words_after(0.0), "the apology is heard", 20)
        sim.clear_faults()
        question = sentences()[3]
        await call.caller.input.speak(question.pcm)
        turn = await listening
        answer = answer_for(question.text, shortest=12, longest=12).split()
        await wait_until(lambda: heard(call)[-len(answer) :] == answer, "the question is answered", 20)
        assert turn.heard[0] == "One"
        assert "zoo." not in heard(call), "it was broken off"


async def test_a_call_is_transferred_when_the_last_words_were_heard(
    sim: SimulatorServer, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    sim.set_fault("llm", "groq", "status", status=500)
    heard_by_then: list[list[str]] = []
    given: dict[str, Any] = {"max_retries": 0, "on_exhausted": "transfer", "own_voice": False}

    def hook(_: Any) -> None:
        heard_by_then.append(heard(call))

    async with audio_call(**services(sim, http), **given, transfer=hook, cache_dir=tmp_path) as call:
        await call.turn()
        await wait_until(lambda: heard_by_then, "the call is transferred")
        # The sound is on its way to the caller a moment longer than it is being said.
        assert len(heard_by_then[0]) >= len(heard(call)) - 1
        assert heard(call) in [text.split() for text in shipped("en")["final.transfer"]]
