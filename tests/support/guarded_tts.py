"""A GuardedTTS over the real Cartesia and Groq plugins and the stand-ins."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
from livekit import rtc
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.plugins import cartesia, groq

from tests.support.noted_link import NotedLink
from worker.guard.tts import GuardedTTS
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

CARTESIA = "tts:cartesia:sonic-3"
GROQ = "tts:groq:canopylabs/orpheus-v1-english"
TEXT = (
    "Every morning the quiet harbour wakes before anybody else does. Seven fishing boats leave while lamps still "
    "burn along our wooden pier. By noon they return, carrying silver herring and many salty stories."
)
WORDS = TEXT.split()


class Rig:
    """A guard over both plugins, its link, and what was heard."""

    def __init__(self, sim: SimulatorServer, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.link = NotedLink()
        # So long that no busy machine makes a fault of a healthy one; `impatient` is for the ones that are broken.
        self.link.deadlines(CARTESIA, GROQ, first_output_ms=10_000, stall_ms=5_000)
        self.cartesia = cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=session)
        self.groq = groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=session)
        self.tts = GuardedTTS([self.cartesia, self.groq], self.link)
        self.closed = False
        self.errors: list[Any] = []
        cast("Any", self.tts).on("error", self.errors.append)

    async def close(self) -> None:
        """Close the guard, once."""
        if not self.closed:
            self.closed = True
            await self.tts.aclose()

    def impatient(self) -> None:
        """From now on the first voice is waited for as long as a test may take."""
        self.link.deadlines(CARTESIA, first_output_ms=1500, stall_ms=1000)

    async def say(self, text: str = TEXT, into: list[rtc.AudioFrame] | None = None) -> list[rtc.AudioFrame]:
        """Speak as a language model does: word by word. `into` keeps what came before a failure."""
        frames: list[rtc.AudioFrame] = [] if into is None else into
        async with self.tts.stream() as stream:
            for word in text.split(" "):
                stream.push_text(word + " ")
            stream.end_input()
            async for event in stream:
                frames.append(event.frame)  # noqa: PERF401 - what came before a failure must be kept
        return frames


@contextlib.asynccontextmanager
async def rigged() -> AsyncGenerator[Rig]:
    """A rig whose attempts have all ended once when it is closed."""
    async with SimulatorServer(options=Options(tts_speed=30.0)) as sim, aiohttp.ClientSession() as session:
        made = Rig(sim, session)
        try:
            yield made
        finally:
            await made.close()
            await made.cartesia.aclose()
            assert made.link.double_ends == 0
            assert all(attempt.end for attempt in made.link.attempts), "an attempt was never ended"


def told(frames: list[rtc.AudioFrame]) -> list[Any]:
    return [piece for frame in frames for piece in frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, [])]
