"""When apologies are spoken: in their turn, never over the caller, never twice; heard, not sent."""

# livekit leaves the event types of its parts, and so those of their listeners, open.
# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit.agents import Agent

from tests.support.sessions import audio_call
from tests.support.waiting import wait_until
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm


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
