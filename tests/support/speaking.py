"""A caller who speaks into a recogniser's stream in real time and collects what is understood."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import numpy as np
from livekit import rtc
from livekit.agents import inference, stt

from tests.support.waiting import wait_until
from worker.simulator.speech import sentences

RATE: Final = 16_000
FRAME_S: Final = 0.02
SPEECH: Final = {sentence.text: sentence.pcm for sentence in sentences()}
Kind = stt.SpeechEventType


def frame_of(pcm: np.ndarray[Any, np.dtype[np.int16]]) -> rtc.AudioFrame:
    return rtc.AudioFrame(pcm.tobytes(), RATE, 1, len(pcm))


def spoken(text: str) -> rtc.AudioFrame:
    """A recorded sentence and the silence after it."""
    return frame_of(np.pad(SPEECH[text], (0, RATE)))


class Caller:
    """Speaks into a stream in real time, silence between; collects what is understood."""

    def __init__(self, stream: stt.RecognizeStream) -> None:
        self.stream = stream
        self.events: list[stt.SpeechEvent] = []
        self._rest = np.zeros(0, np.int16)
        self._tasks = [asyncio.create_task(self._talk()), asyncio.create_task(self._listen())]

    def say(self, text: str) -> None:
        """Say one of the recorded sentences."""
        self.make(SPEECH[text])

    def make(self, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> None:
        """Make any sound."""
        self._rest = np.concatenate([self._rest, pcm])

    @property
    def said_all(self) -> bool:
        """Nothing is left to say."""
        return not len(self._rest)

    async def _talk(self) -> None:
        count = int(RATE * FRAME_S)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            piece, self._rest = self._rest[:count], self._rest[count:]
            self.stream.push_frame(frame_of(np.pad(piece, (0, count - len(piece)))))
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _listen(self) -> None:
        async for event in self.stream:
            self.events.append(event)

    def finals(self) -> str:
        return " ".join(
            e.alternatives[0].text for e in self.events if e.type is Kind.FINAL_TRANSCRIPT
        ).strip()

    def count(self, kind: stt.SpeechEventType) -> int:
        return sum(event.type is kind for event in self.events)

    async def understood(self, text: str, timeout: float = 12.0) -> None:
        await wait_until(lambda: len(self.finals().split()) >= len(text.split()), "a transcript", timeout)
        assert self.finals() == text

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def detector() -> inference.VAD:
    """As sessions have it, a little quicker."""
    return inference.VAD(min_silence_duration=0.3)
