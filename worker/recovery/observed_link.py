"""The link as one session sees it: everything goes through to the process's link, and is noted for the session.

Before the process's link is there (a session guarded outside of a worker opens one in its event loop) attempts are
noted here alone, built-in defaults hold, and what was said with `hold`, `on_rules` and `on_probe` is passed on later.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from supervisor.wire.messages import FaultEvent, SessionInfo
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import FaultKind, Role
from worker.link.api import Link, ProbeHandler, Rules, RulesListener, TargetSpec, Use

_FAULTS_KEPT = 64
_BAD_FOR_S = 30.0
_MOVED_ON = ("next", "continue")


@dataclass(frozen=True, slots=True)
class NotedFault:
    """One fault of an attempt: monotonic seconds, target, role, kind, and what the guard did about it."""

    at_mono: float
    target: str
    role: Role
    kind: FaultKind
    action: str


@dataclass(slots=True)
class Flight:
    """An attempt under way. `heard`: it has given output."""

    target: str
    role: Role
    started_mono: float
    heard: bool = False


class ObservedLink:
    """See `worker.link.api.Link`."""

    def __init__(self, inner: Link | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self._early = 0
        self._specs: list[TargetSpec] = []
        self._listeners: dict[RulesListener, Callable[[], None] | None] = {}
        self._probes: dict[tuple[Role, ProbeHandler], Callable[[], None] | None] = {}
        self.flights: dict[int, Flight] = {}
        self.faults: deque[NotedFault] = deque(maxlen=_FAULTS_KEPT)
        self.by_kind: dict[Role, Counter[FaultKind]] = {}
        self._bad: dict[str, float] = {}
        self.failovers = 0
        self.successes: Counter[Role] = Counter()
        self.output_mono: dict[Role, float] = {}
        """When an attempt last had its first output or ended well, by role."""
        self.targets: dict[str, str] = {}

    @property
    def inner(self) -> Link | None:
        """The process's link, once there is one."""
        return self._inner

    def attach(self, inner: Link) -> None:
        """The process's link is there now."""
        if self._inner is not None:
            return
        self._inner = inner
        inner.hold(self._specs)
        for listener in self._listeners:
            self._listeners[listener] = inner.on_rules(listener)
            listener(inner.rules)
        for role, handler in self._probes:
            self._probes[role, handler] = inner.on_probe(role, handler)

    # ------------------------------------------------------------------ the face

    @property
    def rules(self) -> Rules:
        return self._inner.rules if self._inner is not None else Rules()

    @property
    def worker(self) -> str:
        return self._inner.worker if self._inner is not None else ""

    def hold(self, specs: list[TargetSpec]) -> None:
        self._specs += specs
        if self._inner is not None:
            self._inner.hold(specs)

    def started(self, target: str, deadline_ms: int) -> int:
        if self._inner is not None:
            attempt = self._inner.started(target, deadline_ms)
        else:
            self._early -= 1  # below zero: never a number of the process's link
            attempt = self._early
        with contextlib.suppress(TargetError):
            role = parse_target(target).role
            self.flights[attempt] = Flight(target, role, self._clock())
        return attempt

    def first_output(self, attempt: int, waited_ms: int) -> None:
        flight = self.flights.get(attempt)
        if flight is not None:
            flight.heard = True
            self.output_mono[flight.role] = self._clock()
            self._bad.pop(flight.target, None)
            self.targets[flight.role.value] = flight.target
        if self._inner is not None and attempt >= 0:
            self._inner.first_output(attempt, waited_ms)

    def succeeded(self, attempt: int, use: Use | None = None) -> None:
        flight = self.flights.pop(attempt, None)
        if self._inner is not None and attempt >= 0:
            self._inner.succeeded(attempt, use or Use())
        if flight is not None:
            self.successes[flight.role] += 1
            self.output_mono[flight.role] = self._clock()

    def failed(
        self, attempt: int, kind: FaultKind, event: FaultEvent | None = None, retry_after_ms: int = 0
    ) -> None:
        flight = self.flights.pop(attempt, None)
        action = event.action if event is not None else ""
        if flight is not None:
            self._bad[flight.target] = self._clock()
            self.faults.append(NotedFault(self._clock(), flight.target, flight.role, kind, action))
            self.by_kind.setdefault(flight.role, Counter())[kind] += 1
            self.failovers += action in _MOVED_ON
        if self._inner is not None and attempt >= 0:
            self._inner.failed(attempt, kind, event, retry_after_ms)

    def abandoned(self, attempt: int) -> None:
        self.flights.pop(attempt, None)
        if self._inner is not None and attempt >= 0:
            self._inner.abandoned(attempt)

    def session(self, info: SessionInfo) -> None:
        if self._inner is not None:
            self._inner.session(info)

    def on_rules(self, listener: RulesListener) -> Callable[[], None]:
        self._listeners[listener] = self._inner.on_rules(listener) if self._inner is not None else None

        def stop() -> None:
            leave = self._listeners.pop(listener, None)
            if leave is not None:
                leave()

        return stop

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        self._probes[role, handler] = self._inner.on_probe(role, handler) if self._inner is not None else None

        def stop() -> None:
            leave = self._probes.pop((role, handler), None)
            if leave is not None:
                leave()

        return stop

    # ------------------------------------------------------------------ for the session

    def last_fault(self, role: Role, since_mono: float) -> NotedFault | None:
        """The newest fault of a role since then."""
        for fault in reversed(self.faults):
            if fault.at_mono < since_mono:
                return None
            if fault.role is role:
                return fault
        return None

    def hopeless(self, role: Role, targets: Sequence[str], since_mono: float, overdue_s: float) -> bool:
        """Whether each of these targets has failed since then, is overdue, or was bad the last time it was asked
        and that was not long ago: nobody is about to answer.
        """
        now = self._clock()
        # Bad in a turn before this one: what begins anew with it is no hope.
        bad = {t for t, mono in self._bad.items() if now - mono < _BAD_FOR_S and mono < since_mono}
        live = [flight for flight in self.flights.values() if flight.role is role]
        for flight in live:
            late = now - flight.started_mono >= overdue_s
            if flight.heard or not (late or flight.target in bad):
                return False
        tried = bad | {flight.target for flight in live}
        tried.update(fault.target for fault in self.faults if fault.at_mono >= since_mono)
        return bool(live) and tried.issuperset(targets)

    def gave_up_on(self, role: Role) -> None:
        """What waits without output is ended by us: no fault for the fleet to count, but no good sign either."""
        for flight in self.flights.values():
            if flight.role is role and not flight.heard:
                self._bad[flight.target] = self._clock()
