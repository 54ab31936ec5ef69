"""Listening through a whole call, whichever recognisers it takes. The heart of `GuardedSTT`.

Rules: an utterance is an attempt; the sound since the last final transcript is kept and played to the next
recogniser at once, so no word is lost; interim transcripts replace each other, final ones add up; the session
hears one start and one end of speech an utterance. When nobody can listen the stream does not end: it says so
once as an error event, waits inside, and goes on where it was.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from livekit import rtc
from livekit.agents import stt

from supervisor.core.decide import GiveUp, Retry, TryNext
from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.attempt import Attempt
from worker.guard.faults import Fault
from worker.guard.routing import Turn
from worker.guard.stt_due import BEGIN_SPEECH_S, SURE_SPEECH_S, Act, Style, due
from worker.guard.stt_ear import Answered, AnySTT, Asked, EarEvent, EarStream, text_of
from worker.guard.stt_speech_check import SpeechCheck
from worker.guard.stt_state import LATE, SILENT, STALLED, Ear, Outage, Plan, Room, SttChild, Utterance, blame
from worker.guard.stt_tape import Meter, Tape
from worker.link.api import Use

WORDY_SPEECH_S: Final = 1.0
"""Loud sound that has words in it: an empty transcript of it is asked for again elsewhere."""
SECOND_OPINION_EVERY_S: Final = 20.0
LOOK_EVERY_S: Final = 0.5
"""While nobody listens: how often to see whether the caller speaks."""

Kind = stt.SpeechEventType
_BY_THE_SERVICE: Final = frozenset(set(Kind) - {Kind.END_OF_SPEECH, Kind.RECOGNITION_USAGE})


@dataclass(slots=True)
class Listening:
    """See the module. Feed `hear`, `flush`, `end`; `run()` ends after `end()` when everything was answered."""

    room: Room
    tape: Tape = field(default_factory=Tape)
    _meter: Meter = field(default_factory=Meter)
    _said: Utterance = field(default_factory=Utterance)
    _outage: Outage = field(default_factory=Outage)
    _plan: Plan = field(default_factory=Plan)
    _now: Ear | None = None
    _turn: Turn[AnySTT] | None = None
    _attempt: Attempt[AnySTT] | None = None
    _ended_mono: float = 0.0
    _heard_mono: float = 0.0
    _opinion_mono: float = float("-inf")
    _poked: asyncio.Event = field(default_factory=asyncio.Event)
    _check: SpeechCheck | None = None

    def hear(self, frame: rtc.AudioFrame) -> None:
        """The next frame: kept, measured, and given to the recogniser at once."""
        pcm = np.frombuffer(frame.data, np.int16)
        loud = self._meter.loud(pcm, frame.duration)
        before = self.tape.speech_s
        self._heard_mono = self._clock()
        self.tape.push(frame, frame.duration, loud, self._heard_mono)
        if self._check is not None:
            self._check.push(frame, frame.duration, loud)
        if self._now is not None:
            self._now.stream.push(frame)
        if before < BEGIN_SPEECH_S <= self.tape.speech_s or before < SURE_SPEECH_S <= self.tape.speech_s:
            self.poke()

    def flush(self) -> None:
        """The segment is to be finished here."""
        self.tape.flush(self._clock())
        if self._now is not None:
            self._now.stream.flush()

    def end(self) -> None:
        """No more sound comes."""
        self._ended_mono = self._clock()
        if self._now is not None:
            self._now.stream.end()
        self.poke()

    def poke(self) -> None:
        """There is something new."""
        self._poked.set()

    def overdue(self) -> bool:
        """The session waits in vain for words: the next recogniser is to be asked now, with what is kept.

        False: there is no next one and nothing is under way, so this stream cannot help.
        """
        now, attempt = self._now, self._attempt
        if now is None:
            return not self._outage.times  # somebody else is asked next
        if attempt is None or self._the_turn().untried() is None:
            return now.opened_mono > self.tape.last_loud_mono > 0.0  # the next one was asked already
        if attempt.heard or (now.stream.style is not Style.REQUEST and not self._unanswered(SURE_SPEECH_S)):
            self._next(now)
        else:
            self._fail(LATE)
        self.poke()
        return True

    async def run(self) -> None:
        """Listen. Raises livekit's `APIError` only when the sound has ended and nobody could understand it."""
        guard = self.room.guard
        self._heard_mono = self._clock()  # a line that has just opened is not muted
        self._check = SpeechCheck(self.room.detector)
        stop = guard.link.on_rules(lambda _: self.poke())
        try:
            while not self._over():
                if self._now is None:
                    self._open()
                self._read()
                await self._wait(self._deadlines())
        finally:
            stop()
            self._move_on()
            guard.keep(self._check.aclose())

    def _over(self) -> bool:
        return self._ended_mono > 0.0 and self._now is not None and self._now.over

    async def _wait(self, timeout_s: float | None) -> None:
        now = self._now
        if now is not None and (now.stream.events or now.stream.fault is not None):
            return
        if not self._poked.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._poked.wait()
            except TimeoutError:
                return
        self._poked.clear()

    def _clock(self) -> float:
        return self.room.guard.clock()

    def _the_turn(self) -> Turn[AnySTT]:
        if self._turn is None:
            self._turn = self.room.guard.turn()
        return self._turn

    def _open(self) -> None:
        """Start the next recogniser when its time has come, and play to it what nobody answered for."""
        if self._clock() < self._plan.not_before_mono:
            return
        child = self._plan.child
        self._plan = Plan()
        if child is None:
            decision = self._the_turn().next()
            if isinstance(decision, GiveUp):
                self._give_up(None)
                return
            child = self._the_turn().child(decision)
        replay = self.tape.replay()
        at_s = replay[0].at_s if replay else self.tape.end_s
        stream = EarStream(
            child.plugin,
            self.poke,
            offset_s=self.room.start_time_offset + at_s,
            language=self.room.language,
            detector=self.room.detector,
        )
        self._now = Ear(child, stream, self._clock())
        self._said.words = False
        for item in replay:
            if item.frame is None:
                stream.flush()
            else:
                stream.push(item.frame)
        if self._ended_mono:
            stream.end()

    def _leave(self) -> None:
        if self._now is not None:
            self.room.guard.keep(self._now.stream.aclose())
        self._now = None

    def _begin(self, child: SttChild) -> Attempt[AnySTT]:
        if self._attempt is None:
            self._attempt = self._the_turn().begin(child)
            self._attempt.verdict().add_done_callback(lambda _: self.poke())
        return self._attempt

    def _fail(self, fault: Fault) -> None:
        """The recogniser failed: report it, and plan who comes next."""
        assert self._now is not None  # noqa: S101 - only called with one
        child, turn = self._now.child, self._the_turn()
        attempt = self._begin(child)
        if attempt.heard:
            turn.restart_budget()
        local = fault.kind is FaultKind.LOCAL
        decision = turn.fail(attempt, fault, again_at_once=local)
        self._attempt = None
        self._leave()
        if not local:
            self.room.failed(child)
        self._outage.fault = fault
        self._go(decision, fault)

    def _move_on(self) -> None:
        """Leave without blame."""
        if self._attempt is not None:
            self._attempt.abandoned()
            self._attempt = None
        self._leave()

    def _go(self, decision: TryNext | Retry | GiveUp, fault: Fault | None) -> None:
        if isinstance(decision, GiveUp):
            self._give_up(fault)
            return
        pause_s = decision.sleep_ms / 1000 if isinstance(decision, Retry) else 0.0
        self._plan = Plan(self._the_turn().child(decision), self._clock() + pause_s)
        self.poke()

    def _give_up(self, fault: Fault | None) -> None:
        """Nobody is left for now: wait, then begin anew with what is kept."""
        if self._ended_mono:
            raise self.room.error_for(fault or self._outage.fault)
        self._turn = None
        self._plan = Plan(None, self._clock() + self._outage.pause_s(random.random()))

    def _read(self) -> None:
        while self._now is not None and self._now.stream.events:
            self._on_event(self._now, self._now.stream.events.popleft())
        now = self._now
        if now is None:
            return
        if now.stream.fault is not None:
            self._hung_up(now.stream.fault)
        elif now.stream.done and not self._ended_mono:
            self._hung_up(Fault(FaultKind.CUT, message="the stream ended by itself", phase=self._phase()))
        elif now.stream.done and now.stream.style is not Style.REQUEST and self._unanswered(WORDY_SPEECH_S):
            self._fail(Fault(FaultKind.EMPTY, message="no words in what was loud", phase=Phase.FIRST_OUTPUT))

    def _hung_up(self, fault: Fault) -> None:
        self._fail(fault if self._attempt is not None else blame(fault, self._clock() - self._heard_mono))

    def _unanswered(self, speech_s: float) -> bool:
        return self.tape.speech_s >= speech_s and self._sure()

    def _phase(self) -> Phase:
        return self._attempt.phase if self._attempt is not None else Phase.CONNECT

    def _on_event(self, now: Ear, event: EarEvent) -> None:
        if self._attempt is not None and self._attempt.heard:
            now.pace.pauses.append(self.tape.last_loud_mono - self._said.last_event_mono)
        self._said.last_event_mono = self._clock()
        if isinstance(event, Asked):
            self._begin(now.child).connected()
            return
        if isinstance(event, Answered):
            now.answered(self._begin(now.child))
            if not event.words:
                self._empty(now)
            return
        if now.stream.style is not Style.REQUEST and event.type in _BY_THE_SERVICE:
            # (A local VAD's start of speech says nothing about the service.)
            now.answered(self._begin(now.child))
        self._on_speech(now, event)

    def _on_speech(self, now: Ear, event: stt.SpeechEvent) -> None:
        if event.type is Kind.START_OF_SPEECH:
            if self._said.start():
                self._give(now, event)
        elif event.type is Kind.END_OF_SPEECH:
            if self._said.end():
                self._give(now, event)
            if self._turn is None:
                self._said.complete()  # its final transcript came before
        elif event.type is Kind.FINAL_TRANSCRIPT and text_of(event):
            self._give(now, event)
            self._understood(now, event)
        elif event.type is Kind.FINAL_TRANSCRIPT:
            self._empty(now, event)
        else:
            self._said.words = self._said.words or bool(text_of(event))
            self.tape.worded = self.tape.worded or self._said.words
            self._give(now, event)  # interim and preflight transcripts, usage

    def _understood(self, now: Ear, event: stt.SpeechEvent) -> None:
        now.pace.waits.append(self._clock() - self.tape.last_loud_mono)
        self._begin(now.child).succeeded(Use(audio_ms=int(self.tape.held_s * 1000)))
        self._attempt = None
        self._turn = None
        self._outage = Outage()
        words = event.alternatives[0].words if event.alternatives else None
        end = getattr(words[-1], "end_time", None) if words else None
        end_s = float(end) - self.room.start_time_offset if isinstance(end, float) else None
        self.tape.answered(end_s if end_s is not None and 0.0 < end_s <= self.tape.end_s else None)
        self.room.understood(now.child)
        self._said.words = False
        if self._said.ended or not self._said.started:
            self._said.complete()

    def _empty(self, now: Ear, event: stt.SpeechEvent | None = None) -> None:
        """An answer without words: to sound that may well have had some, somebody else is asked once."""
        clock = self._clock()
        if (
            self._unanswered(WORDY_SPEECH_S)
            and clock - self._opinion_mono >= SECOND_OPINION_EVERY_S
            and self._the_turn().untried() is not None
        ):
            self._opinion_mono = clock
            self._fail(Fault(FaultKind.EMPTY, message="no words in what was loud", phase=Phase.FIRST_OUTPUT))
            return
        if event is not None:
            self._give(now, event)
        self._begin(now.child).succeeded(Use(audio_ms=int(self.tape.held_s * 1000)))
        self._attempt = None
        self._turn = None
        self.tape.answered()
        if self._said.ended:
            self._said.complete()

    def _give(self, now: Ear, event: stt.SpeechEvent) -> None:
        self.room.emit_event(event, now.stream.context)

    def _deadlines(self) -> float | None:
        """Act on what is due. Seconds until something else is; None: nothing."""
        clock = self._clock()
        now = self._now
        if now is None:
            self._complain(clock)
            wait_s = max(0.0, self._plan.not_before_mono - clock)
            return min(wait_s, LOOK_EVERY_S)
        if self._leave_on_verdict(now):
            return 0.0
        return self._act(now)

    def _act(self, now: Ear) -> float | None:
        state, clock = (self._attempt, self.tape, self._said), self._clock()
        found = due(now.picture(*state, clock, sure=self._sure(), ended_mono=self._ended_mono))
        match found.act:
            case Act.NOTHING:
                return found.wait_s
            case Act.BEGIN:
                self._begin(now.child).connected()
            case Act.FORGET:
                self._forget()
            case Act.LATE:
                self._fail(LATE)
            case Act.STALLED:
                self._fail(STALLED if self._said.words else SILENT)
            case Act.LEAVE:
                self._next(now)
            case Act.OVER:
                now.stream.done = True
        return 0.0

    def _next(self, now: Ear) -> None:
        """Go to somebody else, or begin anew, without blame."""
        self.room.failed(now.child)
        self._move_on()
        self._plan = Plan(self._the_turn().untried(), self._clock())

    def _leave_on_verdict(self, now: Ear) -> bool:
        """A verdict takes effect at once while nothing is being heard, else after the utterance."""
        attempt = self._attempt
        if attempt is not None and not attempt.heard:
            if attempt.verdict().done():
                self._move_on()
                return True
            return False
        if attempt is not None or self._ended_mono or self._unanswered(BEGIN_SPEECH_S):
            return False
        route = self.room.guard.route()
        if route and route[0] is not now.child:
            self._move_on()
            self._turn = None
            return True
        return False

    def _sure(self) -> bool:
        check = self._check
        return check is None or check.heard_since(self.tape.first_loud_mono)

    def _forget(self) -> None:
        """A cough: nobody owes an answer to it."""
        if self._attempt is not None:
            self._attempt.abandoned()
            self._attempt = None
        self._turn = None
        if self._said.end():  # whoever took it for speech may be gone, or hang
            self.room.emit_event(stt.SpeechEvent(Kind.END_OF_SPEECH), None)
        self._said.complete()  # else the next start of speech would be withheld
        self.tape.forget()

    def _complain(self, clock: float) -> None:
        """Tell the session that a caller is not understood: once as unrecoverable, then only for the record."""
        if not self._unanswered(SURE_SPEECH_S):
            return
        if self._outage.complain(clock, self.tape.last_loud_mono):
            self.room.complain(self._outage.fault, recoverable=self._outage.complaints > 1)
