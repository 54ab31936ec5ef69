"""One container's knowledge: counts, breakers, budgets, the strategy, and the rules that follow from them.

Rule: no I/O, no tasks, no clock of its own but the one handed in; the same core runs in the worker's main
process, in an agent embedded elsewhere, and in a job process whose container is gone. One thread only.

Who owns the verdict: the leader. The container's own breaker only narrows, for 5 s, and never takes away the
last admitted target of a role (see `supervisor.core.breaker`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from supervisor.core.breaker import may_open
from supervisor.core.budget import CAP
from supervisor.wire.messages import MAX_TARGETS_PER_WORKER, Report, Snapshot
from supervisor.wire.vocabulary import HISTOGRAM_BOUNDS_MS, FaultKind
from worker.link.api import Rule, Rules, RulesListener, TargetSpec, Use
from worker.link.clock import RedisClock
from worker.link.defaults import default_snapshot
from worker.link.ledger import Flight, TargetEntry, key_job
from worker.link.listeners import Listeners
from worker.link.strategy import Applied, StrategyBook

_log = structlog.get_logger("worker.link")

_MAX_LEFT_OUT: Final = 1_000  # names remembered to be counted once; more are counted as one
_CLOCK_STEP_MS: Final = 20  # a smaller change of the clock's offset is not worth new rules


class LinkCore:
    """See the module's rule. `clock()` gives CLOCK_MONOTONIC seconds, `wall_ms()` this host's wall clock."""

    def __init__(
        self, worker: str, boot: str, host: str, clock: Callable[[], float], wall_ms: Callable[[], float]
    ) -> None:
        self.worker = worker
        self.boot = boot
        self.host = host
        self.clock = clock
        self._wall_ms = wall_ms
        self.redis_clock = RedisClock(wall_ms() - clock() * 1000)
        self.entries: dict[str, TargetEntry] = {}
        self.flights: dict[int, Flight] = {}
        self.book = StrategyBook()
        self.rules = Rules()
        self.changed = False  # something is to be reported
        self.on_fault: Callable[[], None] = _nothing  # a fault was counted: report at once
        self.on_change: Callable[[], None] = _nothing  # something else was counted
        self.apply_lag_ms = 0
        self.strays = 0  # outcomes of attempts that nobody started
        self._listeners = Listeners()
        self._seq = 0
        self._confirmed_mono = float("-inf")
        self._left_out: set[str] = set()

    # ------------------------------------------------------------------ what the calls say

    def hold(self, specs: Iterable[TargetSpec]) -> None:
        """These targets are held here from now on. At most 32; what is over is counted and said."""
        added = False
        for spec in specs:
            entry = self.entries.get(spec.id)
            if entry is None:
                added = self._add(spec) is not None or added
            elif (entry.order, entry.key_fp) != (spec.order, spec.key_fp[:64]):
                entry.order, entry.key_fp = spec.order, spec.key_fp[:64]
                added = True
        if added:
            self._mark()
            self.rebuild()

    # The next three are on every call's path: flat on purpose, a microsecond for all of them together.

    def started(self, key: int, target: str, at_mono: float) -> None:
        """An attempt begins. `key` names it; one that is known already is not begun again."""
        entry = self.entries.get(target)
        if entry is None or key in self.flights:
            entry = self._stranger(key, target)
            if entry is None:
                return
        entry.started += 1
        entry.in_flight += 1
        self.flights[key] = Flight(entry, at_mono)
        if not self.changed:
            self._mark()

    def first_output(self, key: int, waited_ms: int) -> None:
        """The first output came; a second one for the same attempt is nothing new."""
        flight = self.flights.get(key)
        if flight is None or not flight.waiting:
            return
        flight.waiting = False
        entry = flight.entry
        if entry.overdue:
            flight.land()
            entry.fresh_overdue = 0
            entry.life += 1
        entry.first_outputs += 1
        entry.histogram[bisect_left(HISTOGRAM_BOUNDS_MS, waited_ms)] += 1
        if waited_ms > entry.snapshot.overdue_ms:
            entry.over_budget += 1
        if not self.changed:
            self._mark()

    def succeeded(self, key: int, use: Use, target: str = "") -> None:
        """The attempt came to a good end. `target`: counts it even if its start was never heard of."""
        flight = self.flights.pop(key, None) or self._stray(key, target)
        if flight is None:
            return
        entry = flight.entry
        entry.in_flight -= 1
        if entry.overdue:
            flight.land()
            entry.fresh_overdue = 0
            entry.life += 1
        entry.ok += 1
        entry.trailing_faults = 0
        entry.tokens += use.tokens
        entry.characters += use.characters
        entry.audio_ms += use.audio_ms
        if entry.wary:
            self._reassure(entry)
        if not self.changed:
            self._mark()

    def failed(self, key: int, kind: FaultKind, retry_after_ms: int = 0, target: str = "") -> None:
        flight = self.flights.pop(key, None) or self._stray(key, target)
        if flight is None:
            return
        now = self.clock()
        entry = flight.entry
        entry.in_flight -= 1
        flight.land()
        entry.count_fault(kind, retry_after_ms, now)
        if kind is not FaultKind.LOCAL:
            entry.budget.fault(now, entry.snapshot.retry_floor)
        entry.breaker.fault(kind)
        entry.wary = True
        self.changed = True
        opened = self._open_if_due(entry, now)
        if self._retry_moved(entry, now) or opened:
            self.rebuild()
        self.on_fault()

    def abandoned(self, key: int, target: str = "") -> None:
        """Given up by us. One that was overdue or late by then tells of a hang as a timeout does: hedges hide none."""
        flight = self.flights.pop(key, None) or self._stray(key, target)
        if flight is None:
            return
        entry = flight.entry
        if flight.is_late(self.clock()):
            self._overdue(flight)
        entry.in_flight -= 1
        entry.abandoned += 1
        entry.given_up += flight.overdue
        if flight.land():
            entry.breaker.fault(FaultKind.FIRST_OUTPUT_TIMEOUT)
            entry.wary = True
            if self._open_if_due(entry, self.clock()):
                self.rebuild()
        if not self.changed:
            self._mark()

    def abandon_job(self, job: int) -> int:
        """The job process is gone: its attempts under way count against nobody. Gives their number."""
        keys = [key for key in self.flights if key_job(key) == job]
        for key in keys:
            flight = self.flights[key]
            flight.land()  # its end says nothing of the target, overdue or not
            flight.waiting = False
            self.abandoned(key)
        return len(keys)

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """Time went on: overdue attempts, time to live, the budget's floor."""
        now = self.clock()
        moved = False
        for flight in self.flights.values():
            if not flight.waiting or flight.overdue:
                continue
            entry = flight.entry
            if (now - flight.started_mono) * 1000 >= entry.snapshot.overdue_ms:
                self._overdue(flight)
                moved = self._open_if_due(entry, now) or moved
        for entry in self.entries.values():
            moved = self._retry_moved(entry, now) or moved
            if not entry.stale and self._is_stale(entry.snapshot, now):
                moved = True
        if moved:
            self.rebuild()

    def _overdue(self, flight: Flight) -> None:
        flight.become_overdue()
        self.changed = True
        self.on_fault()  # evidence before it fails is as urgent as a fault

    # ------------------------------------------------------------------ the strategy

    def strategy(self, applied: Applied, confirmed_mono: float | None = None) -> None:
        """Take over what the book has applied.

        confirmed_mono: when a leader was last known to stand behind it (None: it was not seen); the
        snapshots' time to live runs from then.
        """
        if confirmed_mono is None and applied in (Applied.CHANGED, Applied.MISSED):
            confirmed_mono = self.clock()  # it is new, so somebody wrote it
        if confirmed_mono is not None:
            self._confirmed_mono = max(self._confirmed_mono, confirmed_mono)
        if applied in (Applied.CHANGED, Applied.MISSED):
            self._note_lag()
            self.rebuild()
        elif any(entry.stale != self._is_stale_now(entry) for entry in self.entries.values()):
            self.rebuild()
        if applied is not Applied.SAME:
            self._mark()

    def seed(self, rules: Rules) -> None:
        """Begin with what another core knew: snapshots, breakers, the clock."""
        now = self.clock()
        self.redis_clock.offset_ms = rules.clock_offset_ms + self._wall_ms() - now * 1000
        for target, rule in rules.by_target.items():
            if not rule.stale:
                self.book.snapshots[target] = rule.snapshot
            entry = self.entries.get(target) or self._add(TargetSpec(target, rule.snapshot.rank))
            if entry is not None:
                entry.breaker.open_until_mono = rule.local_open_until_mono
                entry.wary = True
        self._confirmed_mono = now
        self.rebuild()

    # ------------------------------------------------------------------ what follows

    def rebuild(self) -> None:
        """Make new rules and tell the listeners, if they differ from the ones in force."""
        now = self.clock()
        by_target: dict[str, Rule] = {}
        for entry in self.entries.values():
            known = self.book.snapshots.get(entry.id)
            entry.stale = self._is_stale_now(entry)
            entry.snapshot = (
                known if known is not None and not entry.stale else default_snapshot(entry.id, entry.order)
            )
            hold_off = entry.snapshot.hold_off_until_at_ms
            entry.retry_shown = self._retry_allowed(entry, now)
            by_target[entry.id] = Rule(
                snapshot=entry.snapshot,
                hold_off_until_mono=self.redis_clock.mono_of(hold_off) if hold_off else 0.0,
                local_open_until_mono=entry.breaker.open_until_mono,
                retry_allowed=entry.retry_shown,
                stale=entry.stale,
            )
        offset = int(self.redis_clock.now_ms(now) - self._wall_ms())
        if abs(offset - self.rules.clock_offset_ms) < _CLOCK_STEP_MS:
            offset = self.rules.clock_offset_ms
        head = self.book.head
        rules = Rules(head.revision, head.epoch, by_target, offset)
        if rules == self.rules:
            return
        self.rules = rules
        self._listeners.tell(rules)

    def listen(self, listener: RulesListener) -> Callable[[], None]:
        """Be told of new rules; returns the way to stop."""
        return self._listeners.add(listener)

    def local_open(self) -> tuple[str, ...]:
        """Targets that the container's own breaker has put off now."""
        now = self.clock()
        return tuple(e.id for e in self.entries.values() if e.breaker.is_open(now))

    def report(self, sessions: int, *, draining: bool = False) -> Report:
        """The counts now, under the next number. Build it right before it is sent: its age is then 0."""
        self._seq += 1
        self.changed = False
        now = self.clock()
        entries = sorted(self.entries.values(), key=lambda e: (e.role or "", e.order, e.id))
        head = self.book.head
        return Report(
            worker=self.worker,
            boot=self.boot,
            seq=self._seq,
            age_ms=0,
            host=self.host,
            targets=tuple(entry.counts(now) for entry in entries),
            epoch=head.epoch,
            revision=head.revision,
            refused=dict(self.book.refused),
            sessions=sessions,
            targets_left_out=len(self._left_out),
            draining=draining,
        )

    # ------------------------------------------------------------------ inside

    def _mark(self) -> None:
        self.changed = True
        self.on_change()

    def _add(self, spec: TargetSpec) -> TargetEntry | None:
        entry = TargetEntry(spec.id, spec.order, spec.key_fp[:64], default_snapshot(spec.id, spec.order))
        if entry.role is None or len(self.entries) >= MAX_TARGETS_PER_WORKER:
            if spec.id not in self._left_out and len(self._left_out) < _MAX_LEFT_OUT:
                self._left_out.add(spec.id)
                _log.warning("target left out", action="link.target.left_out", left_out=len(self._left_out))
                self._mark()
            return None
        self.entries[spec.id] = entry
        return entry

    def _stranger(self, key: int, target: str) -> TargetEntry | None:
        """A start of a target that nobody said is held, or one that is known already (None)."""
        if key in self.flights:
            return None
        entry = self._add(TargetSpec(target, len(self.entries)))
        if entry is not None:
            self.rebuild()
        return entry

    def _stray(self, key: int, target: str) -> Flight | None:
        """An outcome whose start was lost counts as started now; without a target it is only counted here."""
        self.strays += 1
        if target:
            self.started(key, target, self.clock())
        return self.flights.pop(key, None)

    def _reassure(self, entry: TargetEntry) -> None:
        """A success after faults: what it gives back to the budget, and the breaker closes."""
        entry.budget.success(entry.snapshot.retry_ratio)
        if entry.breaker.success():
            _log.info("local breaker closed", action="link.breaker.closed", target=entry.id)
            self.rebuild()
        elif self._retry_moved(entry, self.clock()):
            self.rebuild()
        entry.wary = entry.budget.tokens < CAP or not entry.retry_shown

    def _open_if_due(self, entry: TargetEntry, now: float) -> bool:
        if not entry.breaker.due(now, entry.fresh_overdue):
            return False
        peers = sum(
            1 for other in self.entries.values() if other is not entry and self._peer(entry, other, now)
        )
        if not may_open(peers):
            return False
        entry.breaker.open(now)
        _log.warning(
            "local breaker open",
            action="link.breaker.opened",
            target=entry.id,
            run=entry.breaker.run,
            overdue=entry.fresh_overdue,
        )
        return True

    def _peer(self, entry: TargetEntry, other: TargetEntry, now: float) -> bool:
        """Whether `other` could take over all calls of `entry` right now."""
        if other.role is not entry.role or other.breaker.is_open(now):
            return False
        snapshot = other.snapshot
        return other.stale or (
            snapshot.admit >= 1.0
            and not snapshot.new_sessions_only
            and other.key_fp not in snapshot.condemned_keys
            and self.redis_clock.mono_of(snapshot.hold_off_until_at_ms) <= now
        )

    def _retry_allowed(self, entry: TargetEntry, now: float) -> bool:
        return not entry.snapshot.panic and entry.budget.allowed(now, entry.snapshot.retry_floor)

    def _retry_moved(self, entry: TargetEntry, now: float) -> bool:
        return self._retry_allowed(entry, now) != entry.retry_shown

    def _is_stale(self, snapshot: Snapshot, now: float) -> bool:
        return (now - self._confirmed_mono) * 1000 > snapshot.ttl_ms

    def _is_stale_now(self, entry: TargetEntry) -> bool:
        known = self.book.snapshots.get(entry.id)
        return known is None or self._is_stale(known, self.clock())

    def _note_lag(self) -> None:
        """How long after a verdict it got here. What was read at the start was not late: it was there before us."""
        now_ms = self.redis_clock.now_ms(self.clock())
        lags: list[int] = []
        for new in self.book.snapshots.values():
            entry = self.entries.get(new.target)
            if entry is not None and entry.snapshot.epoch and entry.snapshot.since_at_ms != new.since_at_ms:
                lags.append(max(0, now_ms - new.since_at_ms))
        if lags:
            self.apply_lag_ms = min(lags)


def _nothing() -> None:
    return None
