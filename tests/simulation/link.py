"""A modelled link: the real counters, breakers and strategy book (`worker.link.core`), rounds on virtual time.

As the real one: what is overdue is noticed on a beat of 50 ms; a round goes out 100 ms after the last when something
changed, at once for the first fault or overdue attempt of a burst; directives wait for a round, 250 ms at most.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import ceil

from supervisor.core.effects import SendProbe
from supervisor.wire.messages import ProbeResult, Report
from tests.simulation.world import Clock
from worker.link.api import TargetSpec
from worker.link.core import LinkCore
from worker.link.embedded import TICK_S
from worker.link.reporter import DIRECTIVES_S, EVERY_S, HEARTBEAT_S
from worker.link.strategy import Applied

PUSH_MS = 2.0  # Redis, either way
_EVERY_MS = EVERY_S * 1000
_IDLE_MS = DIRECTIVES_S * 1000
_BEAT_MS = HEARTBEAT_S * 1000
_TICK_MS = TICK_S * 1000


class ModelLink:
    """One container's link. deaf: it reaches Redis no more. skew_ms: what the host's wall clock is off by."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        targets: list[str],
        sessions: int,
        rng: random.Random,
        send: Callable[[Report | ProbeResult], None],
        run_probe: Callable[[SendProbe], None],
    ) -> None:
        self.clock, self._send, self._run_probe = clock, send, run_probe
        self.deaf = False
        self.skew_ms = 0.0
        self._sessions = sessions
        self.core = LinkCore(name, "boot-1", name, self.mono, lambda: clock.now + self.skew_ms)
        self.core.redis_clock.measured(clock.now, self.mono(), self.mono())
        self.core.hold(TargetSpec(target, order, "k1") for order, target in enumerate(targets))
        self.core.on_change = self._plan
        self.core.on_fault = self._hurry
        self._phase_ms = rng.random() * _TICK_MS
        self._round_ms = self._urgent_ms = self._beat_ms = float("-inf")
        self._urgent = False
        self._planned_ms = float("inf")
        self._directives: list[SendProbe] = []
        self._results: list[ProbeResult] = []
        self.clock.after(rng.random() * _BEAT_MS, self._beat)

    def mono(self) -> float:
        """Seconds, as CLOCK_MONOTONIC would give them."""
        return self.clock.now / 1000

    # --- what the calls say

    def started(self, key: int, target: str) -> None:
        now = self.clock.now
        self.core.started(key, target, now / 1000)
        overdue = now + self.core.rules.by_target[target].snapshot.overdue_ms
        # The real one looks at every beat; only the first after this can find anything.
        self.clock.at(
            ceil((overdue - self._phase_ms) / _TICK_MS) * _TICK_MS + self._phase_ms, self._look, key
        )

    def _look(self, key: int) -> None:
        flight = self.core.flights.get(key)
        if flight is not None and flight.waiting and not flight.overdue:
            self.core.tick()

    # --- what the leader says

    def take(self, wake: bytes) -> None:
        """A wake-up with snapshots."""
        if not self.deaf:
            self.core.strategy(self.core.book.wake(wake, int(self.clock.now)))

    def direct(self, order: SendProbe) -> None:
        """A directive is written; the next round reads it."""
        if not self.deaf:
            self._directives.append(order)
            self._plan()

    def result(self, result: ProbeResult) -> None:
        """A probe has ended."""
        self._results.append(result)
        self._hurry()

    # --- rounds

    def _last_round(self) -> float:
        """Rounds in which nothing is said come every 250 ms and are not played."""
        idle = (self.clock.now - self._round_ms) // _IDLE_MS
        return self._round_ms + idle * _IDLE_MS if self._round_ms > 0 else self.clock.now - _IDLE_MS

    def _hurry(self) -> None:
        self._urgent = True
        self._plan()

    def _plan(self) -> None:
        now, last = self.clock.now, self._last_round()
        if self._urgent and now >= self._urgent_ms + _EVERY_MS:
            due = now
        elif self.core.changed or self._urgent or self._results:
            due = last + _EVERY_MS
        else:
            due = last + _IDLE_MS
        due = max(due, now)
        if due < self._planned_ms:
            self._planned_ms = due
            self.clock.at(due, self._round, due)

    def _round(self, planned_ms: float) -> None:
        if planned_ms != self._planned_ms:
            return  # an earlier one took its place
        self._planned_ms = float("inf")
        now = self._round_ms = self.clock.now
        if self._urgent:
            self._urgent, self._urgent_ms = False, now
        beat = now >= self._beat_ms + _BEAT_MS
        if self.core.changed or beat:
            self._beat_ms = now if beat else self._beat_ms
            self._say(self.core.report(self._sessions))
        for result in self._results:
            self._say(result)
        for order in self._directives:
            self.clock.after(PUSH_MS, self._run_probe, order)
        self._results, self._directives = [], []

    def _say(self, message: Report | ProbeResult) -> None:
        if not self.deaf:
            self._send(message)

    def _beat(self) -> None:
        self.clock.after(_BEAT_MS, self._beat)
        if not self.deaf:
            self.core.strategy(Applied.SAME, self.mono())  # the leader's lease was seen
        self.core.tick()
        self._plan_beat()

    def _plan_beat(self) -> None:
        if self.clock.now >= self._beat_ms + _BEAT_MS and self._planned_ms == float("inf"):
            self._planned_ms = self.clock.now
            self.clock.at(self._planned_ms, self._round, self._planned_ms)
