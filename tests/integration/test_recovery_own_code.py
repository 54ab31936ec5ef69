"""Failing code of the user's own: the caller hears of it, and no service is blamed."""

# livekit leaves a type open in the signature of its Agent, and so those of its subclasses.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from livekit.agents import Agent, APIConnectionError, ErrorEvent, StopResponse, stt

from supervisor.wire.vocabulary import Role
from tests.support.noted_link import NotedLink
from tests.support.sessions import audio_call, text_call
from tests.support.waiting import WaitTimeout, wait_until
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer, answer_for
from worker.simulator.plugins import cartesia_stt, cartesia_tts, groq_llm

APOLOGIES = set(shipped("en")["llm"])
APOLOGY_WORDS = [text.split() for text in shipped("en")["llm"]]


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(12, 12))) as server:
        yield server


@pytest.fixture
async def services(sim: SimulatorServer) -> AsyncIterator[dict[str, Any]]:
    async with aiohttp.ClientSession() as http:
        yield {
            "stt": cartesia_stt(sim.url, session=http),
            "llm": groq_llm(sim.url),
            "tts": cartesia_tts(sim.url, session=http),
        }


class NoDatabase(Agent):
    """Its own `llm_node` fails before any model is asked."""

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[str]:
        del chat_ctx, tools, model_settings
        raise ConnectionError("database")
        yield ""


async def test_an_llm_node_that_raises_is_apologised_for(sim: SimulatorServer) -> None:
    link = NotedLink()
    async with text_call(groq_llm(sim.url), agent=NoDatabase(instructions=""), link=link) as call:
        with pytest.raises(ConnectionError):  # what the session's `run` met
            await call.ask("Hello?", answers=0)
        await wait_until(lambda: call.said, "something is said")
        assert set(call.said) <= APOLOGIES
        stats = call.manager.get_error_stats()
        assert (stats["by_kind"], stats["in_a_row"]["llm"]) == ({"llm": {"local": 1}}, 1)
        assert call.manager.link.by_kind == {}, "no provider is blamed"


class NoDatabaseAndNoEars(NoDatabase):
    """Its recogniser complains while it answers."""

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[str]:
        gone = stt.STTError(timestamp=0.0, label="stt", error=APIConnectionError("gone"), recoverable=False)
        cast("Any", self.session).emit("error", ErrorEvent(error=gone, source=None))
        async for words in super().llm_node(chat_ctx, tools, model_settings):
            yield words


async def test_an_llm_node_that_raises_is_apologised_for_whatever_the_recogniser_says(
    sim: SimulatorServer,
) -> None:
    async with text_call(groq_llm(sim.url), agent=NoDatabaseAndNoEars(instructions="")) as call:
        with pytest.raises(ConnectionError):
            await call.ask("Hello?", answers=0)
        await wait_until(lambda: APOLOGIES & set(call.said), "an apology")
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"local": 1}}


class Filtered(Agent):
    """Lets nothing but this of an answer through."""

    def __init__(self, left: str) -> None:
        super().__init__(instructions="")
        self.left = left

    async def llm_node(self, chat_ctx: Any, tools: Any, model_settings: Any) -> AsyncIterator[str]:
        del chat_ctx, tools, model_settings
        yield self.left


@pytest.mark.parametrize("left", ["", "  ", "\n", "…"])
async def test_an_answer_without_words_is_apologised_for(sim: SimulatorServer, left: str) -> None:
    async with text_call(groq_llm(sim.url), agent=Filtered(left)) as call:
        await call.ask("Hello?", answers=0)
        await wait_until(lambda: APOLOGIES & set(call.said), "an apology")
        stats = call.manager.get_error_stats()
        assert (stats["by_kind"], stats["in_a_row"]["llm"]) == ({"llm": {"empty": 1}}, 1)


async def test_an_agent_may_mean_to_say_nothing(sim: SimulatorServer) -> None:
    async with text_call(groq_llm(sim.url), agent=Filtered(""), apologise_when_empty=False) as call:
        for number in range(2):
            await call.ask(f"Question {number}", answers=0)
            await wait_until(lambda: call.session.agent_state == "listening", "the turn is over")
        stats = call.manager.get_error_stats()
        assert (stats["total"], stats["turns"], call.said) == (0, 2, [])


async def test_an_answer_without_words_is_apologised_for_in_a_call(
    services: dict[str, Any], tmp_path: Path
) -> None:
    async with audio_call(**services, agent=Filtered("  "), cache_dir=tmp_path) as call:
        assert (await call.turn()).heard in APOLOGY_WORDS
        assert call.manager.get_error_stats()["by_kind"] == {"llm": {"empty": 1}}


class NoSubtitles(Agent):
    """Its own `transcription_node` fails: what it says is heard, but stands nowhere."""

    async def transcription_node(self, text: Any, model_settings: Any) -> AsyncIterator[str]:
        del text, model_settings
        raise ConnectionError("subtitles")
        yield ""


async def test_an_answer_that_was_heard_is_not_apologised_for(
    services: dict[str, Any], tmp_path: Path
) -> None:
    agent = NoSubtitles(instructions="")
    async with audio_call(**services, agent=agent, cache_dir=tmp_path, max_retries=0) as call:
        for _ in range(2):
            turn = await call.turn()
            assert turn.heard == answer_for(turn.said, shortest=12, longest=12).split()
        assert call.manager.get_error_stats()["total"] == 0
        assert call.closed == []


class Hooked(Agent):
    """Its hook at the end of a turn raises, hangs, or wants no reply."""

    def __init__(self, how: str) -> None:
        super().__init__(instructions="Hooked.")
        self.how = how
        self.asked = 0

    async def on_user_turn_completed(self, turn_ctx: Any, new_message: Any) -> None:
        del turn_ctx, new_message
        self.asked += 1
        if self.how == "raises":
            raise ConnectionError("database")
        if self.how == "waits for a cancelled task":
            raise asyncio.CancelledError
        if self.how == "hangs":
            await asyncio.Event().wait()
        if self.how == "wants no reply":
            raise StopResponse


@pytest.mark.parametrize(
    ("how", "kind"), [("raises", "local"), ("waits for a cancelled task", "local"), ("hangs", "stalled")]
)
async def test_a_hook_that_fails_is_apologised_for_and_the_next_turn_is_answered(
    services: dict[str, Any], tmp_path: Path, how: str, kind: str
) -> None:
    agent = Hooked(how)
    async with audio_call(**services, agent=agent, cache_dir=tmp_path, stuck_after_s=1.0) as call:
        assert (await call.turn()).heard in APOLOGY_WORDS
        stats = call.manager.get_error_stats()
        assert (stats["by_kind"], stats["turns"]) == ({"llm": {kind: 1}}, 1)
        assert Role.LLM not in call.manager.link.by_kind, "no provider is blamed"
        agent.how = ""
        heard = (await call.turn()).heard
        assert heard
        assert heard not in APOLOGY_WORDS
        assert call.manager.get_error_stats()["in_a_row"]["llm"] == 0
    assert "on_user_turn_completed" not in vars(agent), "the agent is as it was"


async def test_a_hook_that_wants_no_reply_gets_none(services: dict[str, Any], tmp_path: Path) -> None:
    agent = Hooked("wants no reply")
    async with audio_call(**services, agent=agent, stuck_after_s=0.5, cache_dir=tmp_path) as call:
        speaking = asyncio.ensure_future(call.turn())
        await wait_until(lambda: agent.asked, "the hook is asked", 15)
        with pytest.raises(WaitTimeout):
            await wait_until(lambda: call.manager.report().apologies, "nothing is said", 2.0)
        await call.session.aclose()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
