"""One spoken segment: text in, audio out, whichever voices it takes. The heart of `GuardedTTS`.

Rules: a voice's first output is due from the moment text was handed to its service; a voice that fails after it
was heard is followed by the next one with the rest of the text; nothing is lost, and with word times nothing
is said twice. Every attempt ends once: ok, fault, or abandoned (the caller interrupts, a verdict arrives).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import numpy as np
from livekit import rtc
from livekit.agents import tts
from livekit.agents.types import TimedString

from supervisor.core.decide import Decision, GiveUp, Retry
from supervisor.wire.vocabulary import Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import provider_of
from worker.guard.routing import Guard, HedgeBudget, TurnClock
from worker.guard.tts_text import Script
from worker.guard.tts_track import Pcm, Release, Timed
from worker.guard.tts_try import Failed, MoveOn, TtsChild, TtsTurn, Voice
from worker.guard.tts_voice import AnyTTS


class Desk(Protocol):
    """What a segment needs of its `GuardedTTS`."""

    hedges: HedgeBudget
    turns: TurnClock

    @property
    def guard(self) -> Guard[AnyTTS]: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    def error_for(self, fault: Fault | None) -> Exception: ...
    def spoke(self, child: TtsChild) -> None: ...
    def prepare(self, child: TtsChild) -> None: ...
    def gives_times(self, child: TtsChild) -> bool: ...
    def gave_no_times(self, child: TtsChild) -> None: ...


def _frame(samples: Pcm, rate: int, channels: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate, channels, len(samples) // channels)


class Speech:
    """One segment. Feed `script` and call `poke()`; `run()` ends when all of it was said."""

    def __init__(
        self, desk: Desk, emitter: tts.AudioEmitter, *, on_sent: Callable[[], None] = lambda: None
    ) -> None:
        self.script = Script()
        self._desk = desk
        self._guard = desk.guard
        self._emitter = emitter
        self._on_sent = on_sent
        self._sent_seen = False
        self._poked = asyncio.Event()
        self._out_samples = 0
        self._told_blank = True
        self._voices: list[Voice] = []
        self._lead: Voice | None = None
        self._hedged = self._refused = False
        self._position = 0
        self._last: Fault | None = None

    def poke(self) -> None:
        """There is something new: text, audio, a verdict, an end."""
        self._poked.set()

    @property
    def out_s(self) -> float:
        """Audio given out so far, in seconds."""
        return self._out_samples / self._desk.sample_rate

    async def run(self) -> None:
        """Say the script. Raises livekit's `APIError` when no voice is left; nothing else."""
        turn = self._guard.turn()
        decision: Decision | None = turn.next()
        try:
            while True:
                if not self._voices:
                    decision = await self._begin(turn, decision or turn.next())
                    continue
                waits: list[float] = []
                for voice in list(self._voices):
                    if voice not in self._voices:
                        continue  # another one was heard first
                    try:
                        if voice.step():
                            return
                        if voice in self._voices and (left := voice.check()) is not None:
                            waits.append(left)
                    except MoveOn:
                        self._leave(voice)
                        decision = None
                    except Failed as failed:
                        decision = self._failed(turn, voice, failed)
                if self._voices:
                    self._hedge(turn, waits)
                    await self.wait(min(waits, default=None))
        finally:
            for voice in list(self._voices):
                self._leave(voice)

    def claim(self, voice: Voice) -> bool:
        """Whether this voice is the one to be heard: the first to ask; the others are given up."""
        if self._lead is None:
            self._lead = voice
            for other in list(self._voices):
                if other is not voice:
                    self._leave(other)
        return self._lead is voice

    async def _begin(self, turn: TtsTurn, decision: Decision) -> Decision | None:
        """Do as decided; another decision when the voice could not even begin. Raises when none is left."""
        if isinstance(decision, GiveUp):
            raise self._desk.error_for(self._last)
        if isinstance(decision, Retry) and decision.sleep_ms:
            await asyncio.sleep(decision.sleep_ms / 1000)
        self._hedged = self._refused = False
        # A blank has to come between its first word and the last one of the voice before it.
        self._told_blank = self.script.told_to == 0
        return self._enter(turn, turn.child(decision))

    def _enter(self, turn: TtsTurn, child: TtsChild, *, hedge: bool = False) -> Decision | None:
        try:
            voice = Voice(self, self._desk, turn, child, self._position, hedge=hedge)
        except Exception as error:  # noqa: BLE001 - a plugin that cannot even begin has failed like any other
            self._last = fault_of(error, provider_of(child.plugin), Phase.CONNECT)
            return turn.fail(turn.begin(child), self._last)
        self._voices.append(voice)
        return None

    def _leave(self, voice: Voice) -> None:
        self._voices.remove(voice)
        if self._lead is voice:
            self._lead = None
            self._position = voice.said_to
        voice.leave()

    def _hedge(self, turn: TtsTurn, waits: list[float]) -> None:
        """Have the next voice ready beside one that is late; once more where there was no budget for it."""
        if self._hedged or len(self._voices) != 1:
            return
        late_from = self._voices[0].late_from_mono(refused=self._refused)
        if late_from is None:
            return
        left = late_from - self._guard.clock()
        if left > 0:
            waits.append(left)
            return
        child = self._voices[0].understudy()
        self._hedged = self._refused or child is not None
        self._refused = True
        if not self._hedged:
            self._hedge(turn, waits)
        elif child is not None:
            self._enter(turn, child, hedge=True)
            self.poke()

    def _failed(self, turn: TtsTurn, voice: Voice, failed: Failed) -> Decision:
        self._last = failed.fault
        attempt = voice.begin()
        if attempt.heard:
            turn.restart_budget()
        decision = turn.fail(attempt, failed.fault, again_at_once=failed.stale_socket)
        self._leave(voice)
        return decision

    def sent(self) -> None:
        """Text was handed to a service for the first time."""
        if not self._sent_seen:
            self._sent_seen = True
            self._on_sent()

    def out(self, release: Release, shift_s: float, resampler: rtc.AudioResampler | None, rate: int) -> None:
        """Give on what a voice may let out, in the segment's own time and rate."""
        for piece in release.pieces:
            self._tell(piece, shift_s)
        if release.audio is None or not len(release.audio):
            return
        frame = _frame(release.audio, rate, self._desk.num_channels)
        for resampled in resampler.push(frame) if resampler is not None else (frame,):
            self.give(resampled)

    def give(self, frame: rtc.AudioFrame) -> None:
        """Audio at the guard's rate."""
        self._out_samples += frame.samples_per_channel
        self._emitter.push_frame(frame)

    def nothing_to_say(self) -> None:
        """Text without a word in it: 10 ms of silence, since livekit takes no audio at all for an error."""
        rate = self._desk.sample_rate
        self.give(
            _frame(np.zeros(rate // 100 * self._desk.num_channels, np.int16), rate, self._desk.num_channels)
        )

    async def wait(self, timeout_s: float | None) -> None:
        """Until something new happened, at most `timeout_s`."""
        if not self._poked.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._poked.wait()
            except TimeoutError:
                return
        self._poked.clear()

    def _tell(self, piece: Timed, shift_s: float) -> None:
        # Voices differ in whether a blank comes before a word or after it; at a change of voice neither may be.
        text = piece.text
        if not self._told_blank and text[:1] and not text[0].isspace():
            text = " " + text
        self._told_blank = text[-1:].isspace() if text else self._told_blank
        if piece.end_s is None:
            self._emitter.push_timed_transcript(TimedString(text, start_time=piece.start_s + shift_s))
        else:
            self._emitter.push_timed_transcript(
                TimedString(text, start_time=piece.start_s + shift_s, end_time=piece.end_s + shift_s)
            )
