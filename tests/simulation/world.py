"""Virtual time, providers and their faults."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp

from supervisor.wire.vocabulary import FaultKind

BEGIN_MS = 1_700_000_000_000.0


class Clock:
    """Virtual milliseconds and what is to happen when."""

    def __init__(self) -> None:
        self.now = BEGIN_MS
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._n = 0

    def at(self, when_ms: float, what: Callable[..., None], *args: object) -> None:
        """Let `what` happen then (at once, if that is past)."""
        self._n += 1
        heapq.heappush(self._heap, (max(when_ms, self.now), self._n, what, args))

    def after(self, wait_ms: float, what: Callable[..., None], *args: object) -> None:
        self.at(self.now + wait_ms, what, *args)

    def run_until(self, end_ms: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end_ms:
            self.now, _, what, args = heapq.heappop(heap)
            what(*args)
        self.now = end_ms


@dataclass(frozen=True)
class Outage:
    """From `begin_ms` to `end_ms` (since the run's begin) the target does `mode` to a share of requests.

    modes: status (at once), refused (401), limited (429), hang, slow (first output after 20 s), late (first
    output after 3 s: works, but too slow), cut (mid-answer). every_ms > 0: on and off in turn (flapping).
    """

    begin_ms: float
    end_ms: float
    mode: str
    share: float = 1.0
    retry_after_ms: int = 0
    every_ms: float = 0.0

    def on(self, since_ms: float) -> bool:
        if not self.begin_ms <= since_ms < self.end_ms:
            return False
        return not self.every_ms or int((since_ms - self.begin_ms) / self.every_ms) % 2 == 0


@dataclass(frozen=True)
class Fate:
    """What will become of one request: first output and end after so many ms (None: never)."""

    first_ms: float | None
    end_ms: float | None
    fault: FaultKind | None = None
    retry_after_ms: int = 0


_KINDS = {
    "status": FaultKind.SERVER,
    "refused": FaultKind.AUTHENTICATION,
    "limited": FaultKind.RATE_LIMIT,
    "cut": FaultKind.CUT,
}


@dataclass
class Provider:
    """One target's service. noise: share of requests that fail although nothing is wrong."""

    target: str
    rng: random.Random
    noise: float = 0.0
    outages: list[Outage] = field(default_factory=list[Outage])
    first_median_ms: float = 300.0
    tail_ms: float = 600.0
    requests: int = 0
    dead_requests: int = 0

    def outage(self, now_ms: float) -> Outage | None:
        for outage in self.outages:
            if outage.on(now_ms - BEGIN_MS):
                return outage
        return None

    def request(self, now_ms: float, *, short: bool = False) -> Fate:
        """A request begins. short: a probe, which asks for little."""
        self.requests += 1
        rng = self.rng
        first = self.first_median_ms * exp(rng.gauss(0.0, 0.3))
        end = first + (20.0 if short else self.tail_ms * exp(rng.gauss(0.0, 0.3)))
        outage = self.outage(now_ms)
        if outage is not None:
            self.dead_requests += 1
            if outage.share >= 1.0 or rng.random() < outage.share:
                return self._hit(outage, first, end)
        if self.noise and rng.random() < self.noise:
            return Fate(None, 80.0, FaultKind.SERVER)
        return Fate(first, end)

    def _hit(self, outage: Outage, first: float, end: float) -> Fate:
        if outage.mode == "hang":
            return Fate(None, None)
        if outage.mode in ("slow", "late"):
            wait = 20_000.0 if outage.mode == "slow" else 1_900.0
            return Fate(wait, wait + end - first)
        kind = _KINDS[outage.mode]
        if outage.mode == "cut":
            return Fate(first, first + (end - first) / 2, kind)
        return Fate(None, 30.0, kind, outage.retry_after_ms)
