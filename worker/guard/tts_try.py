"""One voice's try at the rest of a segment: when its first sound is due, when it has stalled, how it ended.

`Speech` asks it to `step()` whenever something new may be there, and lets one voice at a time be heard.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from livekit import rtc

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.attempt import Attempt
from worker.guard.faults import Fault
from worker.guard.names import Child, provider_of
from worker.guard.routing import Turn
from worker.guard.tts_text import has_words
from worker.guard.tts_track import MAX_HELD_S, Release, Timed, Track
from worker.guard.tts_voice import AnyTTS, VoiceStream
from worker.link.api import Use

if TYPE_CHECKING:
    from worker.guard.tts_speech import Desk, Speech

UNSENT_CHARACTERS: Final = 200
"""So much text without a word that it was sent: the voice cannot even connect, its deadline runs."""
_MAYBE_STALE: Final = frozenset({FaultKind.CUT, FaultKind.CONNECT, FaultKind.UNKNOWN})

TtsChild = Child[AnyTTS]
TtsAttempt = Attempt[AnyTTS]
TtsTurn = Turn[AnyTTS]


class Failed(Exception):
    """The voice failed; how, and whether the connection alone was to blame."""

    def __init__(self, fault: Fault, *, stale_socket: bool = False) -> None:
        super().__init__(fault.kind)
        self.fault = fault
        self.stale_socket = stale_socket


class MoveOn(Exception):
    """A verdict says to go elsewhere; nothing was heard."""


class Voice:
    """One child's try at the rest of the script."""

    def __init__(
        self,
        speech: Speech,
        desk: Desk,
        turn: TtsTurn,
        child: TtsChild,
        position: int,
        *,
        hedge: bool = False,
    ) -> None:
        self._speech = speech
        self._desk = desk
        self._guard = desk.guard
        self._turn = turn
        self._child = child
        self._hedge = hedge
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
        self._stream = VoiceStream(plugin, provider_of(plugin), speech.poke, times=desk.gives_times(child))
        self._track = Track(
            speech.script,
            position,
            self._rate,
            channels=plugin.num_channels,
            expects_times=self._stream.words,
        )

    def late_from_mono(self, *, refused: bool) -> float | None:
        """From when another voice may be tried beside this one; None: not at all. refused: see `hedge_at_mono`."""
        if self._attempt is None or self._attempt.heard:
            return None
        return self._turn.hedge_at_mono(self._attempt, refused=refused)

    def understudy(self) -> TtsChild | None:
        """Who may be tried beside this late voice; a hedge is spent then."""
        return self._turn.hedge(self._attempt, self._desk.hedges) if self._attempt is not None else None

    @property
    def said_to(self) -> int:
        """Where the next voice begins."""
        return self._track.said_to

    def begin(self) -> TtsAttempt:
        """The attempt, begun at the latest now."""
        if self._attempt is None:
            if not self._turn.attempts:
                self._turn.begin_words(self._desk.turns)
            if not self._hedge:
                self._desk.hedges.attempt()
            self._attempt = self._turn.begin(self._child)
            self._attempt.verdict().add_done_callback(lambda _: self._speech.poke())
        return self._attempt

    def leave(self) -> None:
        """Break off whatever still runs; an attempt that has not ended counts against nobody."""
        stream, track = self._stream, self._track
        if stream.done and stream.words and not track.timed and track.out_s > MAX_HELD_S:
            self._desk.gave_no_times(self._child)
        if self._resampler is not None and self._track.out_s > 0:
            for frame in self._resampler.flush():
                self._speech.give(frame)
        if self._attempt is not None:
            self._attempt.abandoned()
        self._guard.keep(self._stream.aclose())

    def step(self) -> bool:
        """Whatever can be done now. True: all is said. Raises `Failed` or `MoveOn`."""
        self._feed()
        if not self._take():
            return False
        if self._wordless():
            if self._speech.script.text.strip():
                self._speech.nothing_to_say()
            return True
        if self._stream.done and not self._stream.heard:
            self._ended()
            return True
        return False

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
                raise MoveOn
            self.begin().connected()
        if stream.sent_mono:
            self._speech.sent()

    def _take(self) -> bool:
        """Hear what came and let out what may go. False: the segment is another voice's."""
        now = self._guard.clock()
        while self._stream.heard:
            heard = self._stream.heard.popleft()
            if heard.sentence:
                self._track.sentence(heard.sentence)
            self._track.hear(heard.pcm, heard.pieces, now)
            if self._track.muted:
                break
        if not self._track.audible:
            if self._track.muted:
                raise self._mute()
            return True
        if not self._speech.claim(self):
            return False
        if self._attempt is not None and not self._attempt.heard:
            self._attempt.first_output()
            self._desk.spoke(self._child)
        self._out(self._track.release(now))
        if self._track.muted:
            raise self._mute()
        return True

    def _mute(self) -> Failed:
        phase = Phase.MID_STREAM if self._track.audible else Phase.FIRST_OUTPUT
        return Failed(Fault(FaultKind.SILENT, message="a sentence came as silence", phase=phase))

    def _out(self, release: Release) -> None:
        self._speech.out(release, self._shift_s, self._resampler, self._rate)

    def check(self) -> float | None:
        """Deadlines. Seconds until the next one, None: nothing is due. Raises `Failed`, `MoveOn`."""
        attempt, now = self._attempt, self._guard.clock()
        if attempt is None:
            return None
        if not attempt.heard:
            if attempt.verdict().done():
                attempt.abandoned()
                raise MoveOn
            if now >= attempt.deadline_mono:
                raise Failed(self._late())
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
        # The caller hears nothing once all that came was played: from then on the next sound is due like a first one.
        played = attempt.first_output_mono + self._track.out_s
        due_s = min(attempt.stall_s, attempt.snapshot.first_output_ms / 1000)
        left = min(since + attempt.stall_s, max(since, played) + due_s) - now
        if left <= 0:
            raise Failed(Fault(FaultKind.STALLED, message="no more audio came", phase=Phase.MID_STREAM))
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
            raise Failed(Fault(FaultKind.CUT, message="ended before the text did", phase=phase))
        if not track.audible:
            kind = FaultKind.SILENT if track.received_s > 0 else FaultKind.EMPTY
            raise Failed(Fault(kind, message="ended without a sound", phase=Phase.FIRST_OUTPUT))
        if track.end_sentence():
            raise self._mute()
        if track.cut_short():
            raise Failed(Fault(FaultKind.CUT, message="ended before the last words", phase=Phase.MID_STREAM))
        characters = len(script.text) - track.said_to if not track.timed else len(script.text)
        self._out(track.release(self._guard.clock(), ended=True))
        self._tell_rest()
        self.begin().succeeded(Use(characters=max(0, characters), audio_ms=int(track.received_s * 1000)))

    def _failure(self, fault: Fault) -> Failed:
        received = self._track.received_s > 0
        stale = self._stream.reused_socket and fault.kind in _MAYBE_STALE and not 400 <= fault.status < 600
        if stale and not received:
            return Failed(replace(fault, kind=FaultKind.LOCAL), stale_socket=True)
        if received and not self._track.audible:
            return Failed(replace(fault, kind=FaultKind.SILENT))
        return Failed(fault)

    def _tell_rest(self) -> None:
        """A voice that promised times and gave none must not leave the transcript empty."""
        script = self._speech.script
        rest = script.rest(script.told_to)
        if has_words(rest) and not self._track.as_written:
            return
        if has_words(rest):
            self._out(Release((Timed(rest, 0.0, None),)))
        script.told_to = len(script.text)
