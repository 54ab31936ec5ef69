"""What one container counts about one target, cumulative since boot, and its attempts under way.

Rule: no I/O, no clock; monotonic seconds come in. Every started attempt ends exactly once: ok, a fault or
abandoned; what is under way is in flight.
"""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.core.breaker import Breaker
from supervisor.core.budget import RetryBudget
from supervisor.wire.messages import Snapshot, TargetCounts
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import (
    HEALTH_KINDS,
    HISTOGRAM_BUCKETS,
    FaultKind,
    Role,
)


class TargetEntry:
    """One target: counters, gauges, the container's own breaker and its retry budget."""

    __slots__ = (
        "abandoned",
        "audio_ms",
        "breaker",
        "budget",
        "characters",
        "faults",
        "first_outputs",
        "fresh_overdue",
        "given_up",
        "histogram",
        "id",
        "in_flight",
        "key_fp",
        "life",
        "ok",
        "order",
        "over_budget",
        "overdue",
        "retry_after_until_mono",
        "retry_shown",
        "role",
        "snapshot",
        "stale",
        "started",
        "tokens",
        "trailing_faults",
        "wary",
    )

    def __init__(self, target: str, order: int, key_fp: str, snapshot: Snapshot) -> None:
        self.id = target
        self.order = order
        self.key_fp = key_fp
        self.role: Role | None = _role_of(target)
        self.snapshot = snapshot  # the one in force: the leader's, or the default
        self.stale = True
        self.breaker = Breaker()
        self.budget = RetryBudget()
        self.retry_shown = True  # what the rules say of the budget
        self.wary = False  # its breaker or budget has something to learn from a success
        self.started = 0
        self.ok = 0
        self.faults: dict[FaultKind, int] = {}
        self.abandoned = 0
        self.first_outputs = 0
        self.in_flight = 0
        self.overdue = 0
        # Of these, the ones that became so since the target's last sign of life: among many calls some are
        # always late, and that is no hang while others get their answers. `life` numbers those signs.
        self.fresh_overdue = 0
        self.life = 0
        self.trailing_faults = 0
        self.histogram = [0] * HISTOGRAM_BUCKETS
        self.tokens = 0
        self.characters = 0
        self.audio_ms = 0
        self.retry_after_until_mono = 0.0
        self.over_budget = 0
        self.given_up = 0

    def count_fault(self, kind: FaultKind, retry_after_ms: int, now_mono: float) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if kind in HEALTH_KINDS:
            self.trailing_faults += 1
        if retry_after_ms > 0:
            self.retry_after_until_mono = now_mono + retry_after_ms / 1000

    def counts(self, now_mono: float) -> TargetCounts:
        """The contract's picture of this target now."""
        return TargetCounts(
            target=self.id,
            started=self.started,
            ok=self.ok,
            faults=dict(self.faults),
            abandoned=self.abandoned,
            first_outputs=self.first_outputs,
            in_flight=self.in_flight,
            overdue=self.overdue,
            trailing_faults=self.trailing_faults,
            histogram=tuple(self.histogram) if self.first_outputs else (),
            tokens=self.tokens,
            characters=self.characters,
            audio_ms=self.audio_ms,
            key_fp=self.key_fp,
            retry_after_ms=max(0, int((self.retry_after_until_mono - now_mono) * 1000)),
            over_budget=self.over_budget,
            given_up=self.given_up,
        )


# Made for every attempt, so it costs one C call; it is in no reference cycle, so the collector need not look.
class Flight(msgspec.Struct, gc=False):
    """One attempt under way. waiting: no output yet. overdue: waiting for longer than `overdue_ms`."""

    entry: TargetEntry
    started_mono: float
    waiting: bool = True
    overdue: bool = False
    life: int = 0  # the target's last sign of life when this became overdue

    def is_late(self, now_mono: float) -> bool:
        """Whether it has waited in vain, and is not overdue yet, until another one is asked beside it or longer.

        No recogniser is asked beside another: what a cough began may wait until it is overdue.
        """
        snapshot = self.entry.snapshot
        late_ms = snapshot.overdue_ms
        if snapshot.hedge_ms and self.entry.role is not Role.STT:
            late_ms = min(late_ms, snapshot.hedge_ms)
        return self.waiting and not self.overdue and (now_mono - self.started_mono) * 1000 >= late_ms

    def become_overdue(self) -> None:
        """It waits for longer than it should."""
        self.overdue = True
        self.life = self.entry.life
        self.entry.overdue += 1
        self.entry.fresh_overdue += 1

    def land(self) -> bool:
        """No longer under way, or no longer waiting. True when it was overdue and nothing answered since."""
        if not self.overdue:
            return False
        self.overdue = False
        entry = self.entry
        entry.overdue -= 1
        fresh = self.life == entry.life
        entry.fresh_overdue -= fresh
        return fresh


def _role_of(target: str) -> Role | None:
    try:
        return parse_target(target).role
    except TargetError:
        return None


_JOB_SHIFT: Final = 40  # attempt numbers of one job stay below 2^40


def flight_key(job: int, attempt: int) -> int:
    """One number for an attempt of one job process."""
    return (job << _JOB_SHIFT) | attempt


def key_job(key: int) -> int:
    """Which job process an attempt is of."""
    return key >> _JOB_SHIFT
