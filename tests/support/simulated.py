"""Asking the stand-ins through the real plugins: what came, in plain values."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, llm, stt, tts

from worker.simulator.wordcode import decode, speak

ONCE = APIConnectOptions(max_retry=0, timeout=1.5)
"""No retries, so that a test sees what one attempt meets."""

TEXT = "Hello there, this is a small test. It has two sentences!"


def body_of(error: APIError) -> dict[str, Any]:
    """The provider's error object."""
    body: object = cast("Any", error).body
    assert isinstance(body, dict)
    return cast("dict[str, Any]", body)


@contextlib.asynccontextmanager
async def opened(voice: tts.TTS[Any]) -> AsyncGenerator[tts.TTS[Any]]:
    """A voice, closed in the end."""
    try:
        yield voice
    finally:
        await voice.aclose()


class Reply:
    """What an LLM stream brought until it ended or failed."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[tuple[str, str]] = []
        self.usage: llm.CompletionUsage | None = None


async def ask(
    model: llm.LLM[Any], *messages: tuple[str, str], tools: Sequence[Any] = (), into: Reply | None = None
) -> Reply:
    """One streamed answer; messages are (role, text). The plugin's exception passes; ``into`` keeps what came."""
    context = llm.ChatContext.empty()
    for role, text in messages:
        context.add_message(role=role, content=text)  # pyright: ignore[reportArgumentType] - roles are literals
    reply = into or Reply()
    async with model.chat(chat_ctx=context, conn_options=ONCE, tools=list(tools)) as stream:
        async for chunk in stream:
            if chunk.delta is not None:
                reply.text += chunk.delta.content or ""
                reply.calls += [(call.name, call.arguments) for call in chunk.delta.tool_calls]
            reply.usage = chunk.usage or reply.usage
    return reply


def samples(frames: Sequence[rtc.AudioFrame]) -> npt.NDArray[np.int16]:
    """All samples of some frames."""
    return np.concatenate(
        [np.frombuffer(frame.data, np.int16) for frame in frames] or [np.zeros(0, np.int16)]
    )


def words_in(frames: Sequence[rtc.AudioFrame]) -> list[str]:
    """The words decoded from sound."""
    return decode(samples(frames), frames[0].sample_rate) if frames else []


async def say(
    voice: tts.TTS[Any], text: str = TEXT, into: list[rtc.AudioFrame] | None = None
) -> list[rtc.AudioFrame]:
    """Speech over the plugin's streaming way where it has one; ``into`` keeps what came before a failure."""
    frames: list[rtc.AudioFrame] = [] if into is None else into
    if not voice.capabilities.streaming:
        async with voice.synthesize(text, conn_options=ONCE) as stream:
            async for event in stream:
                frames.append(event.frame)  # noqa: PERF401 - what came before a failure must be kept
        return frames
    async with voice.stream(conn_options=ONCE) as stream:
        stream.push_text(text)
        stream.end_input()
        async for event in stream:
            frames.append(event.frame)  # noqa: PERF401 - what came before a failure must be kept
    return frames


def spoken(text: str = TEXT, sample_rate: int = 16_000) -> rtc.AudioFrame:
    """Someone saying a text, in one frame."""
    pcm, _ = speak(text.split(), sample_rate)
    return rtc.AudioFrame(pcm.tobytes(), sample_rate, 1, len(pcm))


def quiet(seconds: float, sample_rate: int = 16_000) -> rtc.AudioFrame:
    """Nobody saying anything, in one frame."""
    count = round(seconds * sample_rate)
    return rtc.AudioFrame(bytes(2 * count), sample_rate, 1, count)


async def until(stream: AsyncIterator[stt.SpeechEvent], kind: stt.SpeechEventType) -> list[stt.SpeechEvent]:
    """The events of a recogniser up to the first of a kind (or its end)."""
    events: list[stt.SpeechEvent] = []
    async for event in stream:
        events.append(event)
        if event.type is kind:
            break
    return events
