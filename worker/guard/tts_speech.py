"""One spoken segment: text in, audio out, whichever voices it takes. The heart of `GuardedTTS`.

Rules: a voice's first output is due from the moment text was handed to its service; a voice that fails after it
was heard is followed by the next one with the rest of the text; nothing is lost, and with word times nothing
is said twice. Every attempt ends once: ok, fault, or abandoned (the caller interrupts, a verdict arrives).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from livekit import rtc
from livekit.agents import tts
from livekit.agents.types import TimedString

from supervisor.core.decide import GiveUp, Retry, TryNext
from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.attempt import Attempt
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import Child, provider_of
from worker.guard.routing import Guard, Turn
from worker.guard.tts_text import Script, has_words
from worker.guard.tts_track import Pcm, Release, Timed, Track
from worker.guard.tts_voice import AnyTTS, VoiceStream
from worker.link.api import Use

UNSENT_CHARACTERS: Final = 200
"""So much text without a word that it was sent: the voice cannot even connect, its deadline runs."""
_MAYBE_STALE: Final = frozenset({FaultKind.CUT, FaultKind.CONNECT, FaultKind.UNKNOWN})

TtsChild = Child[AnyTTS]
TtsAttempt = Attempt[AnyTTS]
TtsTurn = Turn[AnyTTS]


class Desk(Protocol):
    """What a segment needs of its `GuardedTTS`."""

    @property
    def guard(self) -> Guard[AnyTTS]: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    def error_for(self, fault: Fault | None) -> Exception: ...
    def spoke(self, child: TtsChild) -> None: ...
    def prepare(self, child: TtsChild) -> None: ...


def _frame(samples: Pcm, rate: int, channels: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate, channels, len(samples) // channels)


class _Failed(Exception):
    """The voice at work failed; how, and whether the connection alone was to blame."""

    def __init__(self, fault: Fault, *, stale_socket: bool = False) -> None:
        super().__init__(fault.kind)
        self.fault = fault
        self.stale_socket = stale_socket


class _MoveOn(Exception):
    """A verdict says to go elsewhere; nothing was heard."""


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
        position = 0
        decision = turn.next()
        last: Fault | None = None
        while True:
            if isinstance(decision, GiveUp):
                raise self._desk.error_for(last)
            if isinstance(decision, Retry) and decision.sleep_ms:
                await asyncio.sleep(decision.sleep_ms / 1000)
            child = turn.child(decision)
            try:
                voice = _Voice(self, self._desk, turn, child, position)
            except Exception as error:  # noqa: BLE001 - a plugin that cannot even begin has failed like any other
                last = fault_of(error, provider_of(child.plugin), Phase.CONNECT)
                decision = turn.fail(turn.begin(child), last)
                continue
            try:
                await voice.speak()
                return
            except _MoveOn:
                position = voice.said_to
                decision = turn.next()
            except _Failed as failed:
                position = voice.said_to
                last = failed.fault
                decision = self._failed(turn, voice, failed)
            finally:
                voice.leave()

    def _failed(self, turn: TtsTurn, voice: _Voice, failed: _Failed) -> TryNext | Retry | GiveUp:
        attempt = voice.begin()
        if attempt.heard:
            turn.restart_budget()
        return turn.fail(attempt, failed.fault, again_at_once=failed.stale_socket)

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

    def seam(self) -> None:
        """Another voice begins: a blank has to come between its first word and the last one."""
        self._told_blank = self.script.told_to == 0


class _Voice:
    """One child's try at the rest of the script."""

    def __init__(self, speech: Speech, desk: Desk, turn: TtsTurn, child: TtsChild, position: int) -> None:
        self._speech = speech
        self._desk = desk
        self._guard = desk.guard
        self._turn = turn
        self._child = child
        self._fed_to = speech.script.before(position)
        self._shift_s = speech.out_s
        self._attempt: TtsAttempt | None = None
        desk.prepare(child)
        plugin = child.plugin
        self._rate = plugin.sample_rate
        self._resampler = (
            rtc.AudioResampler(self._rate, desk.sample_rate, num_channels=plugin.num_channels)
            if self._rate != desk.sample_rate
            else None
        )
        self._stream = VoiceStream(plugin, provider_of(plugin), speech.poke)
        self._track = Track(
            speech.script,
            position,
            self._rate,
            channels=plugin.num_channels,
            expects_times=self._stream.words,
        )

    @property
    def said_to(self) -> int:
        """Where the next voice begins."""
        return self._track.said_to

    def begin(self) -> TtsAttempt:
        """The attempt, begun at the latest now."""
        if self._attempt is None:
            if not self._turn.attempts:
                self._turn.restart_budget()  # the caller waits since there is text, not since the stream was opened
            self._attempt = self._turn.begin(self._child)
            self._attempt.verdict().add_done_callback(lambda _: self._speech.poke())
        return self._attempt

    def leave(self) -> None:
        """Break off whatever still runs; an attempt that has not ended counts against nobody."""
        if self._resampler is not None and self._track.out_s > 0:
            for frame in self._resampler.flush():
                self._speech.give(frame)
        if self._attempt is not None:
            self._attempt.abandoned()
        self._guard.keep(self._stream.aclose())

    async def speak(self) -> None:
        """Say the rest. Raises `_Failed` or `_MoveOn`."""
        speech, stream = self._speech, self._stream
        speech.seam()
        while True:
            self._feed()
            self._take()
            if self._wordless():
                if speech.script.text.strip():
                    speech.nothing_to_say()
                return
            if stream.done and not stream.heard:
                self._ended()
                return
            await speech.wait(self._check())

    def _feed(self) -> None:
        script, stream = self._speech.script, self._stream
        if len(script.text) > self._fed_to:
            text = script.text[self._fed_to :]
            if not stream.pushed:
                text = text.lstrip()
            if text:
                self._fed_to = len(script.text)
                stream.push(text)
        if script.ended and not stream.ended_mono and not stream.done:
            stream.end()
        unsent = stream.pushed and (
            stream.ended_mono or len(script.text) - self._track.said_to > UNSENT_CHARACTERS
        )
        if (
            self._attempt is None
            and (stream.sent_mono or unsent)
            and has_words(script.rest(self._track.said_to))
        ):
            if self._child.target not in self._guard.picture().targets and self._turn.untried() is not None:
                raise _MoveOn
            self.begin().connected()
        if stream.sent_mono:
            self._speech.sent()

    def _take(self) -> None:
        now = self._guard.clock()
        while self._stream.heard:
            heard = self._stream.heard.popleft()
            if heard.sentence:
                self._track.sentence(heard.sentence)
            self._track.hear(heard.pcm, heard.pieces, now)
        if self._track.audible and self._attempt is not None and not self._attempt.heard:
            self._attempt.first_output()
            self._desk.spoke(self._child)
        self._out(self._track.release(now))

    def _out(self, release: Release) -> None:
        self._speech.out(release, self._shift_s, self._resampler, self._rate)

    def _check(self) -> float | None:
        """Deadlines. Seconds until the next one, None: nothing is due. Raises `_Failed`, `_MoveOn`."""
        attempt, now = self._attempt, self._guard.clock()
        if attempt is None:
            return None
        if not attempt.heard:
            if attempt.verdict().done():
                attempt.abandoned()
                raise _MoveOn
            if now >= attempt.deadline_mono:
                raise _Failed(self._late())
            return attempt.deadline_mono - now
        waits = [
            wait for wait in (self._track.wait_s(now), self._stall_wait(attempt, now)) if wait is not None
        ]
        return min(waits, default=None)

    def _stall_wait(self, attempt: TtsAttempt, now: float) -> float | None:
        stream = self._stream
        busy = stream.busy
        owed = busy if busy is not None else stream.sent_mono > stream.audio_mono or self._track.owes()
        if not (owed or stream.ended_mono):
            return None
        since = max(stream.audio_mono, stream.sent_mono, stream.ended_mono)
        left = since + attempt.stall_s - now
        if left <= 0:
            raise _Failed(Fault(FaultKind.STALLED, message="no more audio came", phase=Phase.MID_STREAM))
        return left

    def _late(self) -> Fault:
        if self._track.received_s > 0:
            return Fault(FaultKind.SILENT, message="only silence came in time", phase=Phase.FIRST_OUTPUT)
        return Fault(
            FaultKind.FIRST_OUTPUT_TIMEOUT, message="no audio came in time", phase=Phase.FIRST_OUTPUT
        )

    def _wordless(self) -> bool:
        """All there is has no word in it: nothing is owed by anybody."""
        script, track = self._speech.script, self._track
        if not script.ended or track.received_s > 0 or self._attempt is not None:
            return False
        return not has_words(script.rest(track.said_to))

    def _ended(self) -> None:
        """The plugin's stream is over: well, or not."""
        stream, track, script = self._stream, self._track, self._speech.script
        attempt = self._attempt
        phase = attempt.phase if attempt is not None else Phase.CONNECT
        if stream.fault is not None:
            raise self._failure(stream.fault)
        if not script.ended:
            raise _Failed(Fault(FaultKind.CUT, message="ended before the text did", phase=phase))
        if not track.audible:
            kind = FaultKind.SILENT if track.received_s > 0 else FaultKind.EMPTY
            raise _Failed(Fault(kind, message="ended without a sound", phase=Phase.FIRST_OUTPUT))
        if track.cut_short():
            raise _Failed(Fault(FaultKind.CUT, message="ended before the last words", phase=Phase.MID_STREAM))
        characters = len(script.text) - track.said_to if not track.timed else len(script.text)
        self._out(track.release(self._guard.clock(), ended=True))
        self._tell_rest()
        self.begin().succeeded(Use(characters=max(0, characters), audio_ms=int(track.received_s * 1000)))

    def _failure(self, fault: Fault) -> _Failed:
        received = self._track.received_s > 0
        stale = self._stream.reused_socket and fault.kind in _MAYBE_STALE and not 400 <= fault.status < 600
        if stale and not received:
            return _Failed(replace(fault, kind=FaultKind.LOCAL), stale_socket=True)
        if received and not self._track.audible:
            return _Failed(replace(fault, kind=FaultKind.SILENT))
        return _Failed(fault)

    def _tell_rest(self) -> None:
        """A voice that promised times and gave none must not leave the transcript empty."""
        script = self._speech.script
        rest = script.rest(script.told_to)
        if has_words(rest) and not self._track.as_written:
            return
        if has_words(rest):
            self._out(Release((Timed(rest, 0.0, None),)))
        script.told_to = len(script.text)
