"""livekit's VAD put to use: whether loud sound is speech, and where an utterance begins and ends.

The check is fed only while it is loud, so silence costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, cast

import structlog
from livekit import rtc
from livekit.agents import vad

log = structlog.stdlib.get_logger("worker.guard")

_HANGOVER_S: Final = 0.8
"""Quiet sound still fed after the last loud frame, so that the VAD sees the speech end."""
_MARGIN_S: Final = 0.3
"""That much more than the silence after which a VAD says that speech has ended."""
MIN_SILENCE_S: Final = 0.5
"""Whisper does better with whole sentences than with what is between two commas."""


class SpeechCheck:
    """Without a VAD everything loud counts as speech."""

    def __init__(self, detector: vad.VAD | None) -> None:
        self._stream = detector.stream() if detector is not None else None
        self._hangover_s = max(_HANGOVER_S, _min_silence_s(self._stream) + _MARGIN_S)
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
        self._left_s = self._hangover_s if loud else self._left_s - seconds
        if self._left_s > 0:
            try:
                self._stream.push_frame(frame)
            except RuntimeError as error:  # its task has ended: the call goes on without
                log.warning("no VAD any more", action="guard.stt.no_vad", error=type(error).__name__)
                self._stream = None

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


class Segments(vad.VAD):
    """A VAD for plugins that do not stream, whose segments never share sound.

    As it comes, livekit's VAD ends a segment after 0.25 s of silence and begins the next one 0.5 s before its speech:
    after a short pause the last words before it are recognised twice.
    """

    def __init__(self, inner: vad.VAD) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    @property
    def silence_s(self) -> float:
        """Silence after which it has ended a segment for sure."""
        return max(_min_silence_s(self._inner), MIN_SILENCE_S) + _MARGIN_S

    def stream(self) -> vad.VADStream:
        stream = self._inner.stream()
        options = getattr(stream, "_opts", None)
        silence_s = getattr(options, "min_silence_duration", None)
        padding_s = getattr(options, "prefix_padding_duration", None)
        if isinstance(silence_s, float) and isinstance(padding_s, float) and padding_s >= silence_s:
            silence_s = max(silence_s, MIN_SILENCE_S)
            cast("Any", stream).update_options(
                min_silence_duration=silence_s, prefix_padding_duration=min(padding_s, silence_s - 0.1)
            )
        return stream


def _min_silence_s(detector: vad.VAD | vad.VADStream | None) -> float:
    """The silence after which a VAD takes speech for ended; 0.0: not known."""
    silence_s = getattr(getattr(detector, "_opts", None), "min_silence_duration", None)
    return float(silence_s) if isinstance(silence_s, int | float) else 0.0
