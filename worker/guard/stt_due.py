"""What a recogniser owes by now: pure, from what was said, what it answered, and when.

Rules of this module:
1. Nothing is owed for sound that may be a cough (`SURE_SPEECH_S`) or that no VAD takes for speech.
2. A recogniser that answers while one speaks owes its first event within the first-output deadline, counted from the
   beginning of the speech; one that answers at the end owes it from the end.
3. One that answered and then falls silent while the caller goes on has stalled. When the caller has stopped as
   well it may be right to wait for the rest of a sentence, but the caller cannot: it is left without blame.
4. How long is too long (`Pace`): twice its longest pause in this call's speech so far, or one and a half times its
   longest wait for a final transcript; at least what every service keeps, at most the stall deadline. Likewise one
   that has answered in this call is left, without blame, when it takes twice its longest time to a first event;
   one that answers a request, and has not yet, after `REQUEST_S`, when there is somebody else to ask.
5. When the sound has ended, one that owes nothing is waited for no longer than `END_S`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

BEGIN_SPEECH_S: Final = 0.2
"""Loud sound after which an utterance has begun, as far as the attempt's clock is concerned."""
SURE_SPEECH_S: Final = 0.5
"""Loud sound that a recogniser must have noticed."""
PAUSE_S: Final = 1.0
"""Between interim transcripts of somebody who goes on speaking; services send several a second."""
FIRST_S: Final = 1.2
"""From the beginning of speech to the first event."""
REQUEST_S: Final = 1.2
"""From a request to its answer, while nothing is known of the service: they need 0.2 to 0.8 s for a sentence."""
FINAL_S: Final = 1.5
"""From the last sound to the final transcript: services need 0.1 to 0.8 s, and more for what seems unfinished."""
WORDLESS_S: Final = 1.8
"""From a start of speech to the first words."""
END_S: Final = 3.0
"""From the end of all sound to the end of the stream."""
QUIET_S: Final = 1.0
"""Silence after which sound too short for an answer is forgotten."""


class Style(StrEnum):
    """What a recogniser lets us know, and when: while one speaks, at the end, or when it is asked."""

    INTERIM = "interim"
    FINAL = "final"
    REQUEST = "request"


class Act(StrEnum):
    """What has to be done now."""

    NOTHING = "nothing"
    BEGIN = "begin"
    FORGET = "forget"
    LATE = "late"
    STALLED = "stalled"
    LEAVE = "leave"
    OVER = "over"


class Due(NamedTuple):
    """What to do, and in how many seconds to look again (None: when something happens)."""

    act: Act
    wait_s: float | None = None


@dataclass(slots=True)
class Pace:
    """How the recogniser that listens has answered in this call: its last pauses and waits, in seconds."""

    firsts: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    pauses: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=10))

    def first_s(self) -> float | None:
        """Time to the first event that is too long; None: nothing is known of it yet."""
        return max(FIRST_S, 2.0 * max(self.firsts)) if self.firsts else None

    def pause_s(self, stall_s: float) -> float:
        """Silence that is too long while the caller goes on."""
        return min(stall_s, max(PAUSE_S, 2.0 * max(self.pauses, default=0.0)))

    def final_s(self, stall_s: float) -> float:
        """Silence that is too long after the caller's last sound."""
        return min(stall_s, max(FINAL_S, 1.5 * max(self.waits, default=0.0)))


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that matters. Times are CLOCK_MONOTONIC seconds, 0.0: never.

    speech_s: loud sound nobody answered for. sure: a VAD (if there is one) takes it for speech. asked: an attempt
    is going on; answered: it has given some output; words: with words in it. begun_mono: since when it is waited
    for; late_mono: its first output is due; others: there is a recogniser that this utterance was not tried with.
    ended_mono: no more sound comes since then.
    """

    now_mono: float
    style: Style
    speech_s: float
    last_loud_mono: float
    sure: bool = True
    asked: bool = False
    answered: bool = False
    words: bool = False
    last_event_mono: float = 0.0
    begun_mono: float = 0.0
    late_mono: float = 0.0
    stall_s: float = 3.0
    ended_mono: float = 0.0
    others: bool = False
    pace: Pace = field(default_factory=Pace)


def due(p: Picture) -> Due:
    """What the recogniser owes now."""
    found = _owed(p)
    if found != Due(Act.NOTHING) or not p.ended_mono or p.style is Style.REQUEST:
        return found
    left_s = max(p.ended_mono, p.last_event_mono) + END_S - p.now_mono
    return Due(Act.NOTHING, left_s) if left_s > 0 else Due(Act.OVER)


def _owed(p: Picture) -> Due:
    if p.style is Style.REQUEST:
        return _request(p)
    if not p.asked:
        return _not_begun(p)
    if p.answered:
        return _after_answer(p)
    return _noise(p) if p.speech_s < SURE_SPEECH_S else _first(p)


def _request(p: Picture) -> Due:
    if p.asked:
        return Due(Act.NOTHING) if p.answered else _first(p)
    return Due(Act.NOTHING) if p.sure else _noise(p)  # what its VAD takes for speech it is asked about


def _not_begun(p: Picture) -> Due:
    if p.speech_s < BEGIN_SPEECH_S or not p.sure:
        return _noise(p)
    quiet_s = p.now_mono - p.last_loud_mono
    if p.style is Style.FINAL and quiet_s < SURE_SPEECH_S:
        return Due(Act.NOTHING, SURE_SPEECH_S - quiet_s)
    return Due(Act.BEGIN)


def _noise(p: Picture) -> Due:
    if p.speech_s <= 0.0:
        return Due(Act.NOTHING)
    left_s = p.last_loud_mono + QUIET_S - p.now_mono
    return Due(Act.NOTHING, left_s) if left_s > 0 else Due(Act.FORGET)


def _first(p: Picture) -> Due:
    late, first_s = _late(p), _first_s(p)
    if late.act is Act.LATE or first_s is None:
        return late
    left_s = p.begun_mono + first_s - p.now_mono
    if left_s <= 0:
        return Due(Act.LEAVE)
    return Due(Act.NOTHING, min(left_s, late.wait_s or left_s))


def _first_s(p: Picture) -> float | None:
    """Time to the first event after which it is left before its deadline; None: it is not."""
    match p.style:
        case Style.INTERIM:
            return p.pace.first_s()
        case Style.REQUEST if p.others:
            return p.pace.first_s() or REQUEST_S
        case _:
            return None


def _late(p: Picture) -> Due:
    left_s = p.late_mono - p.now_mono
    return Due(Act.NOTHING, left_s) if left_s > 0 else Due(Act.LATE)


def _after_answer(p: Picture) -> Due:
    if not p.words and (p.speech_s < SURE_SPEECH_S or not p.sure):
        return _noise(p)
    if p.speech_s < BEGIN_SPEECH_S:
        return Due(Act.NOTHING)
    silent_s = p.now_mono - p.last_event_mono
    went_on_s = p.last_loud_mono - p.last_event_mono
    pause_s = p.pace.pause_s(p.stall_s) if p.words else min(p.stall_s, WORDLESS_S)
    if p.style is Style.INTERIM and went_on_s >= 0.8 * pause_s and silent_s >= pause_s:
        return Due(Act.STALLED)
    left_s = max(p.last_loud_mono, p.last_event_mono) + p.pace.final_s(p.stall_s) - p.now_mono
    if left_s <= 0:
        return Due(Act.LEAVE if p.words else Act.STALLED)
    if went_on_s > 0:
        left_s = min(left_s, max(pause_s - silent_s, 0.05))
    return Due(Act.NOTHING, left_s)
