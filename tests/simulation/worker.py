"""A modelled container: sessions that make turns, a link that counts and reports, the real local rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.core.admission import Router
from supervisor.core.breaker import Breaker, may_open
from supervisor.core.effects import SendProbe
from supervisor.wire.messages import ProbeResult, Report, Snapshot, TargetCounts
from supervisor.wire.vocabulary import HEALTH_KINDS, HISTOGRAM_BOUNDS_MS, HISTOGRAM_BUCKETS, FaultKind, State
from tests.simulation.world import BEGIN_MS, Clock, Fate, Provider

TURN_MS = 4_000.0
REPORT_MS = 100.0
HEARTBEAT_MS = 1_000.0
PUSH_MS = 2.0  # Redis, either way


@dataclass
class Held:
    id: str
    order: int
    key_fp: str = "k1"


class Rule:
    """What `supervisor.core.admission` reads."""

    __slots__ = ("hold_off_until_mono", "local_open_until_mono", "snapshot", "stale")

    def __init__(self, snapshot: Snapshot, hold_off_until_mono: float, local_open_until_mono: float) -> None:
        self.snapshot = snapshot
        self.hold_off_until_mono = hold_off_until_mono
        self.local_open_until_mono = local_open_until_mono
        self.stale = False


@dataclass
class Counts:
    """One target's counters in the link."""

    started: int = 0
    ok: int = 0
    faults: dict[FaultKind, int] = field(default_factory=dict[FaultKind, int])
    abandoned: int = 0
    first: int = 0
    trailing: int = 0
    retry_after_ms: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BUCKETS)
    waiting: dict[int, Attempt] = field(
        default_factory=dict[int, "Attempt"]
    )  # by number, until output or end
    in_flight: int = 0
    overdue: int = 0
    given_up: int = 0


class Attempt:
    """One request of one turn."""

    __slots__ = ("at", "ended", "n", "overdue", "target", "turn")

    def __init__(self, n: int, target: str, turn: Turn, at: float) -> None:
        self.n = n
        self.target = target
        self.turn = turn
        self.at = at
        self.overdue = False
        self.ended = False


class Turn:
    """One answer to be given: the targets still to be tried."""

    __slots__ = ("begun", "left", "session")

    def __init__(self, session: str, begun: float, left: tuple[str, ...]) -> None:
        self.session = session
        self.begun = begun
        self.left = left


def bucket(waited_ms: float) -> int:
    for index, bound in enumerate(HISTOGRAM_BOUNDS_MS):
        if waited_ms <= bound:
            return index
    return HISTOGRAM_BUCKETS - 1


class Worker:
    """See the module. broken: targets whose requests fail here and only here."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        providers: dict[str, Provider],
        sessions: int,
        rng: random.Random,
        send: Callable[[Report | ProbeResult], None],
        *,
        reports: bool = True,
    ) -> None:
        self.name, self.clock, self.providers, self.rng, self._send = name, clock, providers, rng, send
        self.sessions = [f"{name}-s{i}" for i in range(sessions)]
        self.held = [Held(target, order) for order, target in enumerate(providers)]
        self.counts = {target: Counts() for target in providers}
        self.breakers = {target: Breaker() for target in providers}
        self.snapshots: dict[str, Snapshot] = {}
        self.rules: dict[str, Rule] = {}
        self.router = Router(self.held)
        self.broken: set[str] = set()
        self.deaf = False  # reaches Redis no more
        self.skew_ms = 0.0
        self.boot, self.seq, self.n = "boot-1", 0, 0
        self.due = False
        self.last_sent = 0.0
        self.waits: list[float] = []
        self.silent = 0
        for session in self.sessions:
            clock.after(rng.random() * TURN_MS, self.turn, session)
        if reports:
            clock.after(rng.random() * HEARTBEAT_MS, self._heartbeat)

    # --- calls

    def turn(self, session: str) -> None:
        clock = self.clock
        clock.after(TURN_MS * (0.9 + 0.2 * self.rng.random()), self.turn, session)
        route = self.router.route(self.rules, session, int(BEGIN_MS + self.skew_ms), clock.now / 1000)
        self._next(Turn(session, clock.now, route.targets))

    def _next(self, turn: Turn) -> None:
        if not turn.left:
            self.silent += 1
            return
        target, turn.left = turn.left[0], turn.left[1:]
        clock = self.clock
        self.n += 1
        attempt = Attempt(self.n, target, turn, clock.now)
        counts = self.counts[target]
        counts.started += 1
        counts.in_flight += 1
        counts.waiting[attempt.n] = attempt
        self._dirty()
        fate = self._fate(target)
        snapshot = self.snapshots.get(target)
        deadline = snapshot.first_output_ms if snapshot else 2_000
        overdue = snapshot.overdue_ms if snapshot else 1_600
        if fate.first_ms is not None and fate.first_ms <= deadline:
            clock.after(fate.first_ms, self._first, attempt, fate.first_ms)
        elif fate.end_ms is None or fate.end_ms > deadline:
            clock.after(deadline, self._end, attempt, FaultKind.FIRST_OUTPUT_TIMEOUT, 0)
            clock.after(overdue, self._overdue, attempt)
            return
        if fate.first_ms is not None and fate.first_ms > overdue:
            clock.after(overdue, self._overdue, attempt)
        if fate.end_ms is not None:
            clock.after(fate.end_ms, self._end, attempt, fate.fault, fate.retry_after_ms)

    def _fate(self, target: str, *, short: bool = False) -> Fate:
        if target in self.broken:
            return Fate(None, 20.0, FaultKind.CONNECT)  # it never reaches the provider
        return self.providers[target].request(self.clock.now, short=short)

    def _first(self, attempt: Attempt, waited: float) -> None:
        if attempt.ended:
            return
        counts = self.counts[attempt.target]
        counts.waiting.pop(attempt.n, None)
        counts.first += 1
        counts.histogram[bucket(waited)] += 1
        if attempt.overdue:
            attempt.overdue = False
            counts.overdue -= 1
        self.waits.append(self.clock.now - attempt.turn.begun)
        self._dirty()

    def _end(self, attempt: Attempt, fault: FaultKind | None, retry_after_ms: int) -> None:
        if attempt.ended:
            return
        counts, heard = self.counts[attempt.target], attempt.n not in self.counts[attempt.target].waiting
        self._close(attempt)
        breaker = self.breakers[attempt.target]
        if fault is None:
            counts.ok += 1
            counts.trailing = 0
            if breaker.success():
                self._apply()
            self._dirty()
            return
        burst = not counts.trailing
        counts.faults[fault] = counts.faults.get(fault, 0) + 1
        counts.trailing += fault in HEALTH_KINDS
        counts.retry_after_ms = retry_after_ms
        breaker.fault(fault)
        self._break(attempt.target)
        self._dirty()
        if burst and self.clock.now - self.last_sent > REPORT_MS / 2:
            self._report()
        if not heard:
            self._next(attempt.turn)

    def _overdue(self, attempt: Attempt) -> None:
        counts = self.counts[attempt.target]
        if attempt.ended or attempt.n not in counts.waiting:
            return
        attempt.overdue = True
        counts.overdue += 1
        self._break(attempt.target)
        self._dirty()

    def _close(self, attempt: Attempt) -> None:
        attempt.ended = True
        counts = self.counts[attempt.target]
        counts.in_flight -= 1
        counts.waiting.pop(attempt.n, None)
        if attempt.overdue:
            counts.overdue -= 1

    def _break(self, target: str) -> None:
        now, breaker = self.clock.now / 1000, self.breakers[target]
        if not breaker.due(now, self.counts[target].overdue):
            return
        peers = sum(
            1
            for other, snapshot in self.snapshots.items()
            if other != target and snapshot.admit >= 1.0 and not self.breakers[other].is_open(now)
        )
        if may_open(peers):
            breaker.open(now)
            self._apply()
            self._abandon(target)

    # --- strategy and probes

    def take(self, snapshots: tuple[Snapshot, ...]) -> None:
        """Apply what was published."""
        for snapshot in snapshots:
            self.snapshots[snapshot.target] = snapshot
        self._apply()
        for snapshot in snapshots:
            if snapshot.state in (State.UNHEALTHY, State.LIMITED) and not snapshot.panic:
                self._abandon(snapshot.target)

    def _apply(self) -> None:
        self.rules = {
            target: Rule(
                snapshot, snapshot.hold_off_until_at_ms / 1000, self.breakers[target].open_until_mono
            )
            for target, snapshot in self.snapshots.items()
            if target in self.breakers
        }

    def _abandon(self, target: str) -> None:
        """A verdict arrives: attempts without output are given up, their turns move on."""
        counts = self.counts[target]
        for attempt in list(counts.waiting.values()):
            if attempt.turn.left:
                counts.given_up += attempt.overdue
                counts.abandoned += 1
                self._close(attempt)
                self._next(attempt.turn)
        self._dirty()

    def probe(self, order: SendProbe) -> None:
        fate = self._fate(order.target, short=True)
        slow = fate.end_ms is None or fate.end_ms > order.budget_ms
        wait = order.budget_ms if slow else fate.end_ms or 0.0
        fault = FaultKind.FIRST_OUTPUT_TIMEOUT if slow else fate.fault
        result = ProbeResult(
            self.name,
            order.id,
            order.target,
            fault,
            int(fate.first_ms or 0),
            int(wait),
            retry_after_ms=fate.retry_after_ms,
        )
        self.clock.after(wait + PUSH_MS, self._send, result)

    # --- reports

    def _dirty(self) -> None:
        if not self.due:
            self.due = True
            self.clock.at(self.last_sent + REPORT_MS, self._due)

    def _due(self) -> None:
        if self.due:
            self._report()

    def _heartbeat(self) -> None:
        self.clock.after(HEARTBEAT_MS, self._heartbeat)
        if self.clock.now - self.last_sent >= HEARTBEAT_MS - REPORT_MS:
            self._report()

    def _report(self) -> None:
        self.due = False
        self.last_sent = self.clock.now
        self.seq += 1
        targets = tuple(
            TargetCounts(
                target,
                c.started,
                c.ok,
                dict(c.faults),
                c.abandoned,
                c.first,
                c.in_flight,
                c.overdue,
                c.trailing,
                tuple(c.histogram),
                key_fp="k1",
                retry_after_ms=c.retry_after_ms,
                given_up=c.given_up,
            )
            for target, c in self.counts.items()
        )
        self._send(Report(self.name, self.boot, self.seq, 0, self.name, targets, sessions=len(self.sessions)))
