"""Drives the real engine by hand: workers that report, probes that are answered, time that is set."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from supervisor.core import engine
from supervisor.core.effects import Effect, Emit, Publish, SendProbe
from supervisor.core.inputs import Input, ProbeEnded, Reported, Tick, TookOver
from supervisor.core.state import TargetRec
from supervisor.wire.messages import Event, ProbeResult, Report, Snapshot, TargetCounts
from supervisor.wire.vocabulary import HEALTH_KINDS, FaultKind, State

ONE, TWO = "llm:one:model", "llm:two:model"
BEGIN_MS = 1_700_000_000_000


@dataclass
class Counters:
    """What one worker has counted about one target."""

    started: int = 0
    ok: int = 0
    first: int = 0
    trailing: int = 0
    overdue: int = 0
    in_flight: int = 0
    given_up: int = 0
    abandoned: int = 0
    retry_after_ms: int = 0
    fp: str = "k1"
    faults: dict[FaultKind, int] = field(default_factory=dict[FaultKind, int])
    histogram: list[int] = field(default_factory=lambda: [0] * 19)


class Rig:
    """A fleet of hand-driven workers that all hold `targets`."""

    def __init__(self, workers: int = 4, targets: tuple[str, ...] = (ONE, TWO), sessions: int = 5) -> None:
        self.now = BEGIN_MS
        self.state = engine.new_state(self.now)
        self.targets = targets
        self.sessions = {f"w{i}": sessions for i in range(workers)}
        self.seq = dict.fromkeys(self.sessions, 0)
        self.counters = {(w, t): Counters() for w in self.sessions for t in targets}
        self.effects: list[Effect] = []
        self.told: dict[str, Snapshot] = {}
        self.probes: list[SendProbe] = []
        self.silent: set[str] = set()
        self.send(TookOver(1, 0))
        self.beat()

    # --- inputs

    def send(self, item: Input) -> list[Effect]:
        self.state, effects = engine.step(self.state, item, self.now)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Publish):
                self.told.update({s.target: s for s in effect.snapshots})
                for gone in effect.removed:
                    self.told.pop(gone, None)
            elif isinstance(effect, SendProbe):
                self.probes.append(effect)
        return effects

    def report(self, worker: str, *, late_ms: int = 0) -> Report:
        self.seq[worker] += 1
        counts = tuple(
            TargetCounts(
                t, c.started, c.ok, dict(c.faults), c.abandoned, c.first, c.in_flight, c.overdue, c.trailing,
                tuple(c.histogram), key_fp=c.fp, retry_after_ms=c.retry_after_ms, given_up=c.given_up,
            )
            for t, c in ((t, self.counters[worker, t]) for t in self.targets)
        )  # fmt: skip
        report = Report(worker, "b1", self.seq[worker], 0, "h", counts, sessions=self.sessions[worker])
        self.send(Reported(report, late_ms))
        return report

    def ok(self, worker: str, target: str = ONE, n: int = 1) -> None:
        """Attempts that began, had output and came to a good end."""
        c = self.counters[worker, target]
        c.started += n
        c.first += n
        c.ok += n
        c.histogram[5] += n
        c.trailing = 0
        self.report(worker)

    def fail(self, worker: str, target: str = ONE, kind: FaultKind = FaultKind.SERVER, n: int = 1) -> None:
        """Attempts that began and failed without output."""
        c = self.counters[worker, target]
        c.started += n
        c.faults[kind] = c.faults.get(kind, 0) + n
        c.trailing += n * (kind in HEALTH_KINDS)
        self.report(worker)

    def hang(self, worker: str, target: str = ONE, n: int = 1) -> None:
        """Attempts that wait, and are overdue by now."""
        c = self.counters[worker, target]
        c.started += n
        c.in_flight += n
        c.overdue += n
        self.report(worker)

    def beat(self) -> None:
        """Everybody's heartbeat, and a tick."""
        for worker in self.sessions:
            if worker not in self.silent:
                self.report(worker)
        self.send(Tick())

    def wait(self, seconds: float, *, probes: FaultKind | bool | None = None) -> None:
        """Time goes on by 100 ms steps. probes: how they end (True: well; None: they are not answered)."""
        for step in range(round(seconds * 10)):
            self.now += 100
            if step % 5 == 0:
                self.beat()
            else:
                self.send(Tick())
            if probes is not None:
                self.answer(None if probes is True else FaultKind(probes))

    def answer(self, fault: FaultKind | None, retry_after_ms: int = 0) -> int:
        """End every probe under way."""
        n = 0
        while self.probes:
            order = self.probes.pop(0)
            self.send(
                ProbeEnded(
                    ProbeResult(
                        order.worker, order.id, order.target, fault, 100, 200, retry_after_ms=retry_after_ms
                    )
                )
            )
            n += 1
        return n

    def answer_by(self, good: set[str], fault: FaultKind) -> None:
        """End every probe under way: well for these workers, with this fault for the others."""
        while self.probes:
            order = self.probes.pop(0)
            how = None if order.worker in good else fault
            self.send(ProbeEnded(ProbeResult(order.worker, order.id, order.target, how, 100, 200)))

    # --- shortcuts

    def condemn(self, target: str = ONE) -> None:
        """An outage that everybody sees."""
        for _ in range(6):
            for worker in self.sessions:
                self.now += 20
                self.fail(worker, target)
                self.answer(FaultKind.SERVER)
        assert self.state_of(target) is State.UNHEALTHY

    def state_of(self, target: str = ONE) -> State:
        return self.state.targets[target].v.state

    def target(self, target: str = ONE) -> TargetRec:
        return self.state.targets[target]

    def events(self, kind: str, after: str | None = None) -> list[Event]:
        return [
            e.event
            for e in self.effects
            if isinstance(e, Emit) and e.event.kind == kind and after in (None, e.event.after)
        ]

    def published(self) -> list[Publish]:
        return [e for e in self.effects if isinstance(e, Publish)]

    def reload(self) -> None:
        """A new leader: the saved state, taken over."""
        self.state = engine.load(engine.dump(self.state))
        self.probes.clear()
        self.send(TookOver(self.state.epoch + 1, self.state.revision))


def again(report: Report, **changes: object) -> Report:
    """The same report with some fields changed."""
    return msgspec.structs.replace(report, **changes)


def spread(rig: Rig, n: int, kind: FaultKind = FaultKind.SERVER, step_ms: int = 50) -> None:
    """Faults one after the other, worker by worker; probes are never answered."""
    for i in range(n):
        rig.now += step_ms
        rig.fail(f"w{i % len(rig.sessions)}", kind=kind)


def busy(rig: Rig, seconds: int = 10, each: int = 5) -> None:
    for _ in range(seconds):
        for worker in rig.sessions:
            rig.ok(worker, n=each)
        rig.wait(1.0)
