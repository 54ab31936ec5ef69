"""A caller's two ends in an AgentSession: a microphone that speaks, a loudspeaker that listens, both in real time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from livekit import rtc
from livekit.agents.voice import io

from worker.simulator.callers.ears import Ears
from worker.simulator.wordcode import Pcm

__all__ = ["FRAME_S", "MIC_RATE", "ListeningOutput", "ScriptedCallerInput"]

FRAME_S = 0.05
MIC_RATE = 16_000
_LAG_S = 1.0
"""A microphone read later than this goes on from now, instead of catching up in a burst."""

_HEARD_PAUSE_S = 0.2


class ScriptedCallerInput(io.AudioInput):
    """A microphone: 50 ms frames at 16 kHz as time goes by, silence unless the caller speaks."""

    def __init__(self, label: str = "caller") -> None:
        super().__init__(label=label)
        self._frame = round(FRAME_S * MIC_RATE)
        self._due_mono: float | None = None
        self._speech: deque[tuple[Pcm, asyncio.Future[float]]] = deque()
        self._at = 0
        self._closed = False

    def speak(self, pcm: Pcm) -> asyncio.Future[float]:
        """Speaks mono PCM16 at 16 kHz next; the future gives the monotonic time of its last sample."""
        done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._speech.append((pcm, done))
        return done

    async def speech(self, pcm: Pcm) -> float:
        """Speaks, and waits until it is said; gives the monotonic time of its last sample."""
        return await self.speak(pcm)

    @property
    def speaking(self) -> bool:
        """Whether something is being said, or waits to be."""
        return bool(self._speech)

    def close(self) -> None:
        """Hangs up: the iteration ends, and what was not said is not waited for."""
        self._closed = True
        for _, done in self._speech:
            done.cancel()
        self._speech.clear()

    async def __anext__(self) -> rtc.AudioFrame:
        if self._closed:
            raise StopAsyncIteration
        now_mono = time.monotonic()
        if self._due_mono is None or now_mono - self._due_mono > _LAG_S:
            self._due_mono = now_mono
        # A frame is given when its last sample has been said, as a real microphone does.
        begin_mono, self._due_mono = self._due_mono, self._due_mono + FRAME_S
        if self._due_mono > now_mono:
            await asyncio.sleep(self._due_mono - now_mono)
        pcm = self._next(begin_mono)
        return rtc.AudioFrame(pcm.tobytes(), MIC_RATE, 1, len(pcm))

    def _next(self, begin_mono: float) -> Pcm:
        pcm = np.zeros(self._frame, np.int16)
        filled = 0
        while filled < self._frame and self._speech:
            speech, done = self._speech[0]
            piece = speech[self._at : self._at + self._frame - filled]
            pcm[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._at += len(piece)
            if self._at < len(speech):
                break
            self._speech.popleft()
            self._at = 0
            if not done.done():
                done.set_result(begin_mono + filled / MIC_RATE)
        return pcm


@dataclass(slots=True)
class _Segment:
    """What the session pushed between two flushes."""

    frames: deque[tuple[Pcm, int]] = field(default_factory=deque[tuple[Pcm, int]])
    flushed: bool = False
    interrupted: bool = False
    played_s: float = 0.0
    started: bool = False


class ListeningOutput(io.AudioOutput):
    """A loudspeaker that plays in real time into a caller's ears, and tells the session what was played."""

    def __init__(self, ears: Ears, *, sample_rate: int | None = 24_000, label: str = "caller") -> None:
        super().__init__(
            label=label, capabilities=io.AudioOutputCapabilities(pause=True), sample_rate=sample_rate
        )
        self.ears = ears
        self._segments: deque[_Segment] = deque()
        self._changed = asyncio.Event()
        self._paused = False
        self._player: asyncio.Task[None] | None = None

    @property
    def pending(self) -> bool:
        """Whether a speech has begun and is not over."""
        return bool(self._segments)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        """More of the current speech; never waits, a session may push faster than it is played."""
        await super().capture_frame(frame)
        if self._player is None:
            self._player = asyncio.create_task(self._play(), name="caller-loudspeaker")
        if not self._segments or self._segments[-1].flushed:
            self._segments.append(_Segment())
        segment = self._segments[-1]
        if segment.interrupted:
            return
        pcm = np.frombuffer(frame.data, np.int16)[:: frame.num_channels]
        segment.frames.append((pcm.copy(), frame.sample_rate))
        self._changed.set()

    def flush(self) -> None:
        """The current speech is complete."""
        super().flush()
        if self._segments and not self._segments[-1].flushed:
            self._segments[-1].flushed = True
            self._changed.set()

    def clear_buffer(self) -> None:
        """Stops at once; what was not played is forgotten."""
        for segment in self._segments:
            segment.interrupted = True
            segment.frames.clear()
        self._changed.set()

    def pause(self) -> None:
        """Holds the speech."""
        super().pause()
        self._paused = True

    def resume(self) -> None:
        """Goes on with it."""
        super().resume()
        self._paused = False
        self._changed.set()

    async def aclose(self) -> None:
        """Stops playing."""
        if self._player is not None:
            self._player.cancel()
            await asyncio.gather(self._player, return_exceptions=True)
            self._player = None

    async def _play(self) -> None:
        due_mono = time.monotonic()
        while True:
            self._finish()
            taken = self._take()
            if taken is None:
                await self._wait_for_more(due_mono)
                due_mono = max(due_mono, time.monotonic())
                continue
            segment, pcm, rate = taken
            if not segment.started:
                segment.started = True
                self.on_playback_started(created_at=time.time())
            self.ears.hear(pcm, rate, due_mono)
            segment.played_s += len(pcm) / rate
            due_mono += len(pcm) / rate
            await asyncio.sleep(max(0.0, due_mono - time.monotonic()))

    async def _wait_for_more(self, due_mono: float) -> None:
        """Waits for sound. Only a pause that a caller would hear as one breaks the word that is being said."""
        self._changed.clear()
        if self._segments:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _HEARD_PAUSE_S)
                return
        self.ears.rest(max(due_mono, time.monotonic()))
        await self._changed.wait()

    def _finish(self) -> None:
        """Tells the session of every speech that is over."""
        while self._segments and self._segments[0].flushed and not self._segments[0].frames:
            segment = self._segments.popleft()
            self.on_playback_finished(playback_position=segment.played_s, interrupted=segment.interrupted)

    def _take(self) -> tuple[_Segment, Pcm, int] | None:
        """The next 50 ms at most."""
        if self._paused or not self._segments or not self._segments[0].frames:
            return None
        segment = self._segments[0]
        pcm, rate = segment.frames.popleft()
        size = round(FRAME_S * rate)
        while len(pcm) < size and segment.frames and segment.frames[0][1] == rate:
            pcm = np.concatenate([pcm, segment.frames.popleft()[0]])
        if len(pcm) > size:
            segment.frames.appendleft((pcm[size:], rate))
            pcm = pcm[:size]
        return segment, pcm, rate
