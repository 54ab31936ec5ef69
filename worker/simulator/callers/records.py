"""What a call was like for its caller: a record a turn, a summary, and a judgement of the words heard. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

import msgspec

__all__ = ["Judgement", "Summary", "Turn", "judge", "percentile"]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as its caller lived it.

    ``speech_end_at`` wall time in ms; ``dead_air_s`` from the end of the caller's speech to the first audible sound
    (None: there was none within the caller's patience); ``answer_s`` from the first to the last sound; ``gap_s`` the
    longest silence within it; ``heard_s`` start and end of each word in ``heard``, from the end of the speech.
    """

    caller: str
    turn: int
    said: str
    speech_end_at: int
    dead_air_s: float | None
    silent: bool
    heard: list[str]
    heard_s: list[tuple[float, float]]
    answer_s: float
    gap_s: float
    overlap_s: float = 0.0
    """How long the agent still spoke while the caller did."""
    speech_s: float = 0.0
    """How long the caller spoke."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One call: seconds, over its turns."""

    caller: str
    turns: int
    silent: int
    words_heard: int
    dead_air_p50_s: float | None
    dead_air_p95_s: float | None
    dead_air_max_s: float | None
    longest_gap_s: float
    closed: bool = False
    """Whether the other side ended the call."""

    @classmethod
    def of(cls, caller: str, turns: Sequence[Turn], *, closed: bool = False) -> Summary:
        """The summary of a call's turns."""
        waits = sorted(turn.dead_air_s for turn in turns if turn.dead_air_s is not None)
        return cls(
            caller=caller,
            turns=len(turns),
            silent=sum(turn.silent for turn in turns),
            words_heard=sum(len(turn.heard) for turn in turns),
            dead_air_p50_s=percentile(waits, 0.5),
            dead_air_p95_s=percentile(waits, 0.95),
            dead_air_max_s=waits[-1] if waits else None,
            longest_gap_s=max((turn.gap_s for turn in turns), default=0.0),
            closed=closed,
        )


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Words heard against words expected, both in order."""

    lost: list[str]
    twice: list[str]
    other: list[str]
    """Heard, but no part of what was expected (an apology, say)."""


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of ordered numbers; None when there are none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def judge(expected: Sequence[str], heard: Sequence[str]) -> Judgement:
    """Which words were lost, said twice, or not expected at all."""
    lost: list[str] = []
    surplus: list[str] = []
    matcher = SequenceMatcher(a=list(expected), b=list(heard), autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        if kind in ("delete", "replace"):
            lost += expected[a0:a1]
        if kind in ("insert", "replace"):
            surplus += heard[b0:b1]
    known = set(expected)
    # A word heard out of its order but only once is neither lost nor said twice.
    moved = Counter(lost) & Counter(surplus)
    for word in moved.elements():
        lost.remove(word)
        surplus.remove(word)
    return Judgement(
        lost=lost,
        twice=[word for word in surplus if word in known],
        other=[word for word in surplus if word not in known],
    )
