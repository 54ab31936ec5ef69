"""Whether loud sound is speech, by livekit's VAD. Fed only while it is loud, so silence costs nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from livekit import rtc
from livekit.agents import vad

_HANGOVER_S: Final = 0.8
"""Quiet sound still fed after the last loud frame, so that the VAD sees the speech end."""


class SpeechCheck:
    """Without a VAD everything loud counts as speech."""

    def __init__(self, detector: vad.VAD | None) -> None:
        self._stream = detector.stream() if detector is not None else None
        self._left_s = 0.0
        self._speaking = False
        self._last_mono = 0.0
        self._task = (
            asyncio.create_task(self._read(), name="guard.stt.vad") if self._stream is not None else None
        )

    def push(self, frame: rtc.AudioFrame, seconds: float, loud: bool) -> None:
        """The next frame."""
        if self._stream is None:
            return
        self._left_s = _HANGOVER_S if loud else self._left_s - seconds
        if self._left_s > 0:
            self._stream.push_frame(frame)

    def heard_since(self, mono: float) -> bool:
        """Whether somebody spoke after that moment (CLOCK_MONOTONIC seconds)."""
        return self._stream is None or self._speaking or self._last_mono >= mono

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._stream is not None:
            await self._stream.aclose()

    async def _read(self) -> None:
        assert self._stream is not None  # noqa: S101 - only started with one
        async for event in self._stream:
            if event.type is vad.VADEventType.START_OF_SPEECH:
                self._speaking = True
                self._last_mono = time.monotonic()
            elif event.type is vad.VADEventType.END_OF_SPEECH:
                self._speaking = False
                self._last_mono = time.monotonic()
