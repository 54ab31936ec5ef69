"""Sliding windows over cumulative totals: rings of what the totals were at each slot's beginning.

Rule: counting is one addition to a total; a window's sum is today's total minus the oldest one kept, so what
leaves the window is subtracted when its slot is evicted. Whoever reads must `roll` to the present first.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple


class Counts(NamedTuple):
    """Sums over a window. faults: those that count against health. slow: first outputs over the budget."""

    started: int = 0
    ok: int = 0
    faults: int = 0
    first: int = 0
    slow: int = 0

    @property
    def finished(self) -> int:
        return self.ok + self.faults


class Totals:
    """Cumulative counts of one target since this engine began (or what the state before it had)."""

    __slots__ = ("faults", "first", "ok", "slow", "started")

    def __init__(self) -> None:
        self.started = 0
        self.ok = 0
        self.faults = 0
        self.first = 0
        self.slow = 0

    def now(self) -> Counts:
        return Counts(self.started, self.ok, self.faults, self.first, self.slow)

    def since(self, before: Counts) -> Counts:
        """What was added since `before`."""
        return Counts(
            self.started - before.started,
            self.ok - before.ok,
            self.faults - before.faults,
            self.first - before.first,
            self.slow - before.slow,
        )


class Window:
    """`slots` slots of `width_ms`; its sum covers the present slot and the `slots - 1` before it."""

    __slots__ = ("ring", "slot", "slots", "width_ms")

    def __init__(self, slots: int, width_ms: int, now_ms: int) -> None:
        self.slots = slots
        self.width_ms = width_ms
        self.slot = now_ms // width_ms
        self.ring: deque[Counts] = deque([Counts()] * slots, maxlen=slots)

    def roll(self, now_ms: int, totals: Totals) -> None:
        """Slide to the present. Time that stands still or goes back changes nothing."""
        slot = now_ms // self.width_ms
        missed = slot - self.slot
        if missed <= 0:
            return
        self.slot = slot
        boundary = totals.now()
        for _ in range(min(missed, self.slots)):
            self.ring.append(boundary)

    def sums(self, totals: Totals, clean: Counts | None = None) -> Counts:
        """The window's sums, of what came after `clean` when given; `roll` first."""
        oldest = self.ring[0]
        if clean is not None and clean.started > oldest.started:
            oldest = clean
        return totals.since(oldest)

    def last(self, slots: int, totals: Totals) -> Counts:
        """The sums of the newest `slots` slots only, the present one included."""
        return totals.since(self.ring[-min(slots, self.slots)])
