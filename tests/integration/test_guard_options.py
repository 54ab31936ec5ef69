"""What a plugin has of its own works through the guard in its place."""

# livekit leaves the event types of its parts open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import msgspec
import pytest
from livekit.agents import Agent, AgentSession, RunContext, function_tool, tokenize, tts
from livekit.plugins import cartesia, groq

from tests.support.noted_link import NotedLink
from tests.support.sessions import text_call
from worker.guard.stt import GuardedSTT
from worker.guard.tts import GuardedTTS
from worker.simulator import SimulatorServer, cartesia_tts
from worker.simulator.plugins import groq_llm


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


class Polyglot(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer.")
        self.failed: list[Exception] = []

    @function_tool()
    async def speak_german(self, context: RunContext[Any]) -> str:
        """Speak German."""
        try:
            cast("Any", context.session.tts).update_options(language="de", model="sonic-2")
        except Exception as exc:
            self.failed.append(exc)
            raise
        return "Now in German."


async def test_a_tool_changes_the_language_of_a_guarded_voice(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    take = cartesia_tts._Socket._take  # pyright: ignore[reportPrivateUsage]  # what came over the wire, as sent

    async def noting(self: Any, text: str) -> None:
        asked.append(msgspec.json.decode(text))
        await take(self, text)

    monkeypatch.setattr(cartesia_tts._Socket, "_take", noting)  # pyright: ignore[reportPrivateUsage]  # as above
    async with aiohttp.ClientSession() as http:
        first = cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=http)
        second = groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=http)
        guarded = GuardedTTS([first, second], NotedLink())
        agent = Polyglot()
        session: AgentSession[Any] = AgentSession(llm=groq_llm(sim.url), tts=guarded, vad=None)
        async with text_call(None, session=session, agent=agent) as call:
            await call.ask("Please use tool speak_german.")
            assert agent.failed == []
            await guarded.synthesize("Guten Tag.").collect()
            assert (asked[0]["language"], asked[0]["model_id"]) == ("de", "sonic-2")
            assert second.model == "canopylabs/orpheus-v1-english", "a model's name is its provider's"
        await first.aclose()


async def test_what_is_not_in_the_class_is_the_first_plugins() -> None:
    async with aiohttp.ClientSession() as http:
        one = cartesia.TTS(api_key="key", http_session=http)
        two = cartesia.TTS(api_key="other", http_session=http)
        other = groq.TTS(api_key="key", http_session=http)
        guarded: Any = GuardedTTS([one, two, other], NotedLink())
        guarded.update_options(voice="a-clone", speed=1.2)
        assert [p._opts.voice for p in (one, two)] == ["a-clone"] * 2  # pyright: ignore[reportPrivateUsage]  # no other way to see it
        assert other._opts.voice == "autumn"  # pyright: ignore[reportPrivateUsage]  # as above
        with pytest.raises(TypeError):
            guarded.update_options(nonsense=1)
        cast("Any", one).ask_the_weather = lambda: "rain"
        assert guarded.ask_the_weather() == "rain"
        with pytest.raises(AttributeError):
            _ = guarded.no_such_thing
        with pytest.raises(AttributeError):
            _ = guarded._pool, "private ones are never handed on"
        await guarded.aclose()


async def test_a_language_reaches_recognisers_of_every_provider(sim: SimulatorServer) -> None:
    async with aiohttp.ClientSession() as http:
        one = cartesia.STT(model="ink-whisper", api_key="key", http_session=http)
        other = groq.STT(api_key="key", base_url=sim.base_url("groq"))
        guarded: Any = GuardedSTT([one, other], NotedLink(), detector=cast("Any", object()))
        guarded.update_options(language="de")
        assert one._language == "de"  # pyright: ignore[reportPrivateUsage]  # no other way to see it
        assert [str(lang) for lang in cast("Any", other)._opts.languages] == ["de"]
        await guarded.aclose()


async def test_the_users_own_sentence_tokenizer_cuts_the_text(sim: SimulatorServer) -> None:
    async with aiohttp.ClientSession() as http:
        voice = groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=http)
        whole = tokenize.basic.SentenceTokenizer(min_sentence_len=1000)
        guarded = GuardedTTS([tts.StreamAdapter(tts=voice, sentence_tokenizer=whole)], NotedLink())
        await guarded.synthesize(
            "Every morning the quiet harbour wakes before us. Seven fishing boats leave while lamps still burn."
        ).collect()
        assert len(sim.requests(kind="speech")) == 1, "asked for in one piece, as its tokenizer has it"
        await guarded.aclose()
