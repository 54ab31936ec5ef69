"""A link's core with its time in hand."""

from __future__ import annotations

from typing import Any, Final

from supervisor.wire.codec import encode
from supervisor.wire.messages import Snapshot, TargetCounts, Wake
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.link_fleet import SPECS, A
from worker.link.api import Rules, TargetSpec, Use
from worker.link.core import LinkCore
from worker.link.strategy import Applied

USE: Final = Use(tokens=3, characters=4, audio_ms=5)


class World:
    """A core with its time in hand. Redis TIME is `1_000_000 + seconds * 1000`."""

    def __init__(self, specs: list[TargetSpec] | None = None) -> None:
        self.now = 1_000.0
        self.core = LinkCore("w1", "boot", "host", lambda: self.now, lambda: self.now * 1000)
        self.core.redis_clock.measured(1_000_000 + self.now * 1000, self.now, self.now)
        self.seen: list[Rules] = []
        self.core.listen(self.seen.append)
        self.core.hold(SPECS if specs is None else specs)
        self._keys = 0
        self.revision = 0

    def start(self, target: str = A) -> int:
        self._keys += 1
        self.core.started(self._keys, target, self.now)
        return self._keys

    def fail(self, target: str = A, kind: FaultKind = FaultKind.SERVER, times: int = 1) -> None:
        for _ in range(times):
            self.core.failed(self.start(target), kind)

    def succeed(self, target: str = A) -> None:
        self.core.succeeded(self.start(target), USE)

    def counts(self, target: str = A) -> TargetCounts:
        report = self.core.report(0)
        return next(c for c in report.targets if c.target == target)

    def publish(self, target: str = A, state: State = State.UNHEALTHY, **over: Any) -> Applied:
        self.revision += 1
        snapshot = Snapshot(target=target, revision=self.revision, epoch=5, state=state, **over)
        applied = self.core.book.wake(encode(Wake(5, self.revision, (snapshot,))), None)
        self.core.strategy(applied)
        return applied

    def open(self, target: str = A) -> bool:
        return self.now < self.core.rules.by_target[target].local_open_until_mono
