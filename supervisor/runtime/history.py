"""From cumulative reports to counts per step. Pure. A report costs one assignment; a step's end makes the sums."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.store.history import COARSE, FINE, HistoryPoint, Step
from supervisor.wire.messages import MAX_TARGETS_PER_FLEET, Report, TargetCounts
from supervisor.wire.vocabulary import HISTOGRAM_BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Source = tuple[str, str, str]  # worker, boot, target


@dataclass(slots=True)
class _Sum:
    """What came together within one step."""

    attempts: int = 0
    ok: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    abandoned: int = 0
    first_outputs: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BUCKETS)

    def add(self, before: TargetCounts, after: TargetCounts) -> None:
        """What happened between two reports of one boot. Counters that fell (a late report) add nothing."""
        self.attempts += max(0, after.started - before.started)
        self.ok += max(0, after.ok - before.ok)
        self.abandoned += max(0, after.abandoned - before.abandoned)
        self.first_outputs += max(0, after.first_outputs - before.first_outputs)
        for kind, count in after.faults.items():
            if (more := count - before.faults.get(kind, 0)) > 0:
                self.faults[kind.value] += more
        for at, count in enumerate(after.histogram[:HISTOGRAM_BUCKETS]):
            old = before.histogram[at] if at < len(before.histogram) else 0
            self.histogram[at] += max(0, count - old)

    def merge(self, point: HistoryPoint) -> None:
        """What another leader had counted in the same step."""
        self.attempts += point.attempts
        self.ok += point.ok
        self.abandoned += point.abandoned
        self.first_outputs += point.first_outputs
        self.faults.update(point.faults)
        for at, count in enumerate(point.histogram[:HISTOGRAM_BUCKETS]):
            self.histogram[at] += count

    def point(self, at_ms: int) -> HistoryPoint:
        seen = tuple(self.histogram) if any(self.histogram) else ()
        return HistoryPoint(
            at_ms, self.attempts, self.ok, dict(self.faults), self.abandoned, self.first_outputs, seen
        )


class History:
    """Sums per target. `due` says when a step has ended; `close` gives what is to be written."""

    def __init__(self, now_ms: int) -> None:
        self._since_ms = now_ms  # steps that began before this may hold another leader's counts
        self._fine_at = FINE.start(now_ms)
        self._coarse_at = COARSE.start(now_ms)
        self._coarse: dict[str, _Sum] = {}
        self._latest: dict[_Source, TargetCounts] = {}
        self._base: dict[_Source, TargetCounts] = {}
        self._seeded: set[tuple[str, str, int]] = set()

    def take(self, report: Report) -> None:
        """Remember a report's counters."""
        for counts in report.targets:
            source = (report.worker, report.boot, counts.target)
            if source not in self._base:
                # A boot's first report counts from nothing; of one met in mid-life only what comes after counts.
                self._base[source] = TargetCounts(counts.target) if report.seq <= 1 else counts
            self._latest[source] = counts

    def due(self, now_ms: int) -> bool:
        """Whether the present 5 s step is over."""
        return FINE.start(now_ms) != self._fine_at

    def wanted(self) -> list[tuple[Step, int]]:
        """The open steps that another leader may have written to: read their slots before closing them."""
        opened = [(FINE, self._fine_at), (COARSE, self._coarse_at)]
        return [(step, at) for step, at in opened if at < self._since_ms]

    def targets(self) -> list[str]:
        """Targets that something happened to in the present step, `MAX_TARGETS_PER_FLEET` at most."""
        changed = {s[2] for s, counts in self._latest.items() if self._base[s] is not counts}
        return sorted(changed)[:MAX_TARGETS_PER_FLEET]

    def close(
        self, now_ms: int, live: Iterable[tuple[str, str]], found: Mapping[tuple[str, str], HistoryPoint]
    ) -> dict[str, list[tuple[Step, HistoryPoint]]]:
        """End the step: target → what to write. live: (worker, boot) still heard; others are forgotten.

        found: what `wanted` slots held, by (target, step's prefix).
        """
        fine: dict[str, _Sum] = {target: _Sum() for target in self.targets()}
        for source, counts in self._latest.items():
            if source[2] in fine:
                fine[source[2]].add(self._base[source], counts)
        written: dict[str, list[tuple[Step, HistoryPoint]]] = {}
        for target, step_sum in fine.items():
            coarse = self._coarse.setdefault(target, _Sum())
            coarse.merge(step_sum.point(self._fine_at))
            for step, at, total in ((FINE, self._fine_at, step_sum), (COARSE, self._coarse_at, coarse)):
                old = found.get((target, step.prefix))
                # Once only: what this leader then writes has the other's counts in it.
                if at < self._since_ms and (target, step.prefix, at) not in self._seeded:
                    self._seeded.add((target, step.prefix, at))
                    if old is not None and old.at_ms == at:
                        total.merge(old)
                written.setdefault(target, []).append((step, total.point(at)))
        self._roll(now_ms, set(live))
        return written

    def _roll(self, now_ms: int, live: set[tuple[str, str]]) -> None:
        self._base = {s: counts for s, counts in self._latest.items() if s[:2] in live}
        self._latest = dict(self._base)
        self._fine_at = FINE.start(now_ms)
        if COARSE.start(now_ms) != self._coarse_at:
            self._coarse_at = COARSE.start(now_ms)
            self._coarse = {}
            self._seeded.clear()
