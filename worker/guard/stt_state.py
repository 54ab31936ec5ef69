"""What `Listening` needs around it and remembers: the stream it serves, the utterance, an outage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from livekit.agents import stt, vad
from livekit.agents.types import NotGivenOr

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.attempt import Attempt
from worker.guard.faults import Fault
from worker.guard.names import Child
from worker.guard.routing import Guard
from worker.guard.stt_due import Pace, Picture, Style
from worker.guard.stt_ear import AnySTT, EarStream
from worker.guard.stt_tape import Tape

SttChild = Child[AnySTT]

OUTAGE_BASE_S: Final = 0.5
OUTAGE_CAP_S: Final = 5.0
COMPLAIN_EVERY_S: Final = 10.0
MUTED_S: Final = 8.0
"""Without sound for so long a service may hang up."""
_HANG_UPS: Final = frozenset(
    {FaultKind.CUT, FaultKind.CONNECT, FaultKind.PROTOCOL, FaultKind.SERVER, FaultKind.UNKNOWN}
)

LATE: Final = Fault(
    FaultKind.FIRST_OUTPUT_TIMEOUT, message="speech went unanswered", phase=Phase.FIRST_OUTPUT
)
STALLED: Final = Fault(FaultKind.STALLED, message="no more transcript came", phase=Phase.MID_STREAM)
SILENT: Final = Fault(
    FaultKind.SILENT, message="speech was noticed, no word of it came", phase=Phase.MID_STREAM
)


def blame(fault: Fault, quiet_s: float) -> Fault:
    """The fault of a connection that ended while no utterance was going on, `quiet_s` after the last frame.

    A service may hang up on a line that is muted: that is ours. What it says of key, limits and load stays true.
    """
    return replace(fault, kind=FaultKind.LOCAL) if quiet_s > MUTED_S and fault.kind in _HANG_UPS else fault


class Room(Protocol):
    """What listening needs of its stream and its `GuardedSTT`."""

    @property
    def guard(self) -> Guard[AnySTT]: ...
    @property
    def detector(self) -> vad.VAD | None: ...
    @property
    def language(self) -> NotGivenOr[str]: ...
    @property
    def start_time_offset(self) -> float: ...
    def emit_event(self, event: stt.SpeechEvent, context: Any) -> None: ...
    def complain(self, fault: Fault | None, *, recoverable: bool) -> None: ...
    def error_for(self, fault: Fault | None) -> Exception: ...
    def understood(self, child: SttChild) -> None: ...
    def failed(self, child: SttChild) -> None: ...


@dataclass(slots=True)
class Utterance:
    """What the session and we know of the utterance going on."""

    started: bool = False
    ended: bool = False
    words: bool = False
    last_event_mono: float = 0.0

    def start(self) -> bool:
        """A start of speech came: whether the session is to hear of it."""
        first = not self.started
        self.started = True
        return first

    def end(self) -> bool:
        """An end of speech came: whether the session is to hear of it."""
        first = self.started and not self.ended
        self.ended = self.ended or first
        return first

    def complete(self) -> None:
        """Transcript and end are there: the next event belongs to another one."""
        self.started = self.ended = self.words = False


@dataclass(slots=True)
class Outage:
    """Nobody could listen, `times` in a row."""

    times: int = 0
    fault: Fault | None = None
    complaints: int = 0
    complained_mono: float = 0.0

    def pause_s(self, chance: float) -> float:
        """How long to wait before everybody is asked anew; `chance` in 0..1 spreads callers out."""
        pause = min(OUTAGE_BASE_S * 2**self.times, OUTAGE_CAP_S) * (0.5 + chance / 2)
        self.times = min(self.times + 1, 16)
        return pause

    def complain(self, now_mono: float, spoke_mono: float) -> bool:
        """Whether to tell the session now: at once, and again when the caller has spoken since, but not often."""
        again = spoke_mono > self.complained_mono and now_mono - self.complained_mono >= COMPLAIN_EVERY_S
        if not self.times or (self.complaints and not again):
            return False
        self.complaints += 1
        self.complained_mono = now_mono
        return True


@dataclass(slots=True)
class Plan:
    """Whom to open next and when; None: ask the route."""

    child: SttChild | None = None
    not_before_mono: float = 0.0


@dataclass(slots=True)
class Ear:
    """The recogniser that listens."""

    child: SttChild
    stream: EarStream
    opened_mono: float
    pace: Pace = field(default_factory=Pace)

    @property
    def over(self) -> bool:
        """It has ended well, and all it said was read."""
        return self.stream.done and not self.stream.events and self.stream.fault is None

    def answered(self, attempt: Attempt[AnySTT]) -> None:
        """It gave an event of its own."""
        if not attempt.heard:
            attempt.first_output()
            self.pace.firsts.append(attempt.waited_ms / 1000)

    def picture(
        self,
        attempt: Attempt[AnySTT] | None,
        tape: Tape,
        said: Utterance,
        now_mono: float,
        *,
        sure: bool,
        ended_mono: float,
    ) -> Picture:
        """For `due`."""
        return Picture(
            now_mono=now_mono,
            style=self.stream.style,
            speech_s=tape.speech_s,
            last_loud_mono=tape.last_loud_mono,
            sure=sure or (self.stream.style is Style.REQUEST and tape.worded),
            asked=attempt is not None,
            answered=attempt is not None and attempt.heard,
            words=said.words,
            last_event_mono=said.last_event_mono,
            begun_mono=attempt.started_mono if attempt is not None else 0.0,
            late_mono=attempt.deadline_mono if attempt is not None else 0.0,
            stall_s=attempt.stall_s if attempt is not None else 0.0,
            ended_mono=ended_mono,
            others=attempt is not None and attempt.turn.untried() is not None,
            pace=self.pace,
        )
