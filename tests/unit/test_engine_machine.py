"""Whatever happens in whatever order, these hold (the invariants of the engine)."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from supervisor.core import engine
from supervisor.core.effects import Emit, Publish, SendProbe
from supervisor.core.inputs import (
    CheckEnded,
    GapSeen,
    OverrideCleared,
    OverrideSet,
    ProbeAsked,
    Reported,
    WorkerLeft,
)
from supervisor.core.transitions import CONDEMNED
from supervisor.wire.messages import OverrideRecord, Report
from supervisor.wire.vocabulary import FaultKind, OverrideState, State
from tests.support.engine_kit import ONE, TWO, Rig

WORKERS = ("w0", "w1", "w2")
workers = st.sampled_from(WORKERS)
targets = st.sampled_from((ONE, TWO))
health = st.sampled_from((FaultKind.SERVER, FaultKind.CUT, FaultKind.CONNECT, FaultKind.FIRST_OUTPUT_TIMEOUT))


class EngineMachine(RuleBasedStateMachine):
    """Three workers, two targets of one role, all inputs."""

    @initialize()
    def start(self) -> None:
        self.rig = Rig(workers=3)
        self.seen = 0
        self.revision = 0
        self.last: dict[str, State] = {}
        self.good_probes: dict[str, int] = dict.fromkeys((ONE, TWO), 0)
        self.holds: dict[str, int] = {}
        self.pasts: list[Report] = []

    # --- what happens

    @rule(worker=workers, which=targets, n=st.integers(1, 3))
    def succeed(self, worker: str, which: str, n: int) -> None:
        self.rig.ok(worker, which, n)

    @rule(worker=workers, which=targets, kind=health, n=st.integers(1, 4))
    def fail(self, worker: str, which: str, kind: FaultKind, n: int) -> None:
        self.rig.fail(worker, which, kind, n)

    @rule(worker=workers, which=targets, kind=st.sampled_from(sorted(FaultKind)))
    def fail_any(self, worker: str, which: str, kind: FaultKind) -> None:
        self.rig.fail(worker, which, kind)

    @rule(worker=workers, which=targets, retry_after_ms=st.sampled_from((0, 5_000, 3_600_000)))
    def limit(self, worker: str, which: str, retry_after_ms: int) -> None:
        self.rig.counters[worker, which].retry_after_ms = retry_after_ms
        self.rig.fail(worker, which, FaultKind.RATE_LIMIT)

    @rule(worker=workers, which=targets, n=st.integers(1, 3))
    def hang(self, worker: str, which: str, n: int) -> None:
        self.rig.hang(worker, which, n)

    @rule(worker=workers, which=targets)
    def output_at_last(self, worker: str, which: str) -> None:
        counters = self.rig.counters[worker, which]
        if counters.overdue:
            counters.overdue -= 1
            counters.first += 1
            self.rig.report(worker)

    @rule(worker=workers, which=targets, fp=st.sampled_from(("k1", "k2")))
    def change_key(self, worker: str, which: str, fp: str) -> None:
        self.rig.counters[worker, which].fp = fp
        self.rig.report(worker)

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 3.0, 8.0)))
    def pass_time(self, seconds: float) -> None:
        self.rig.wait(seconds)

    @rule(
        kind=st.sampled_from(
            (None, FaultKind.SERVER, FaultKind.AUTHENTICATION, FaultKind.LOCAL, FaultKind.RATE_LIMIT)
        )
    )
    def answer_probes(self, kind: FaultKind | None) -> None:
        if kind is None:
            for order in self.rig.probes:
                self.good_probes[order.target] += 1
        self.rig.answer(kind)

    @rule()
    def lose_probes(self) -> None:
        self.rig.probes.clear()

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        self.rig.send(WorkerLeft(worker, "b1"))

    @rule(which=targets, state=st.sampled_from(sorted(OverrideState)))
    def override(self, which: str, state: OverrideState) -> None:
        now = self.rig.now
        self.rig.send(OverrideSet(OverrideRecord(which, state, "test", "op", now, now + 5_000)))

    @rule(which=targets)
    def take_back(self, which: str) -> None:
        self.rig.send(OverrideCleared(which, "op"))

    @rule(which=targets)
    def ask(self, which: str) -> None:
        self.rig.send(ProbeAsked(which, "op"))

    @rule(ok=st.booleans())
    def check(self, ok: bool) -> None:
        self.rig.send(CheckEnded("one", ok, "models"))

    @rule()
    def gap(self) -> None:
        self.rig.send(GapSeen("test"))

    @rule()
    def new_leader(self) -> None:
        self.rig.reload()

    @precondition(lambda self: self.rig.state.leading)
    @rule(worker=workers)
    def repeat_a_report(self, worker: str) -> None:
        """A report twice changes nothing."""
        report = self.rig.report(worker)
        before, counters = _picture(self.rig), dict(self.rig.state.counters)
        effects = self.rig.send(Reported(report, 0))
        assert effects == []
        assert self.rig.state.counters["reports_repeated"] == counters.get("reports_repeated", 0) + 1
        self.rig.state.counters = counters
        assert _picture(self.rig) == before

    # --- what holds

    @invariant()
    def revisions_rise(self) -> None:
        for effect in self.rig.effects[self.seen :]:
            if isinstance(effect, Publish):
                assert effect.revision > self.revision
                self.revision = effect.revision
                assert all(s.revision == effect.revision for s in effect.snapshots)

    @invariant()
    def no_recovery_without_a_probe(self) -> None:
        for effect in self.rig.effects[self.seen :]:
            if isinstance(effect, Emit) and effect.event.kind == "verdict":
                event = effect.event
                if event.before in CONDEMNED and event.after not in CONDEMNED:
                    assert event.before == State.PROBING
                    assert event.after == State.RAMPING
                    assert self.good_probes[event.target] >= 2
                    self.good_probes[event.target] = 0

    @invariant()
    def one_probe_at_a_time(self) -> None:
        for target in self.rig.state.targets.values():
            under_way = [
                p
                for p in self.rig.probes
                if p.target == target.id and target.probe and p.id == target.probe.id
            ]
            assert len(under_way) <= 1
        sent = [e.id for e in self.rig.effects if isinstance(e, SendProbe)]
        assert len(sent) == len(set(sent))

    @invariant()
    def a_role_is_never_left_alone(self) -> None:
        told = self.rig.told.values()
        if len(told) < 2 or self.rig.state.refresh:
            return  # who holds which key has just changed: the next tick publishes what follows
        shut = [s for s in told if _key_shut(self.rig, s.target) and s.override is None]
        if len(shut) < len(told):
            assert any(s.admit >= 1.0 and not s.hold_off_until_at_ms for s in told)

    @invariant()
    def hold_offs_only_grow(self) -> None:
        for target in self.rig.state.targets.values():
            before = self.holds.get(target.id, 0)
            now = target.v.hold_until_at_ms
            assert now >= before
            self.holds[target.id] = now

    @invariant()
    def sums_are_true(self) -> None:
        for target in self.rig.state.targets.values():
            assert target.in_flight == sum(p.in_flight for p in target.workers.values())
            assert target.overdue == sum(p.overdue for p in target.workers.values())
            assert 0 <= target.overdue_run <= target.overdue
            assert 0 <= target.waited_run <= target.fleet_run
            assert target.late_run >= 0
            assert target.run >= 0
        assert self.rig.state.sessions == sum(w.sessions for w in self.rig.state.workers.values())

    @invariant()
    def saved_state_is_whole(self) -> None:
        saved = engine.dump(self.rig.state)
        assert engine.dump(engine.load(saved)) == saved
        self.seen = len(self.rig.effects)

    def teardown(self) -> None:
        """Nothing stays trapped once the fault is gone."""
        rig: Rig | None = getattr(self, "rig", None)
        if rig is None:
            return
        for (worker, target), counters in rig.counters.items():
            counters.overdue = counters.in_flight = 0
            counters.retry_after_ms = 0
            rig.report(worker)
            rig.send(OverrideCleared(target, "op"))
        for _ in range(900):
            rig.wait(1.0, probes=True)
            for worker in WORKERS:
                for target in (ONE, TWO):
                    if rig.told[target].admit > 0.0:
                        rig.ok(worker, target)
            if all(t.v.state is State.HEALTHY for t in rig.state.targets.values()):
                return
        raise AssertionError([(t.id, t.v.state, t.v.reason) for t in rig.state.targets.values()])


def _key_shut(rig: Rig, target: str) -> bool:
    record = rig.state.targets[target]
    return bool(record.workers) and set(rig.told[target].condemned_keys) >= {
        p.fp for p in record.workers.values()
    }


def _picture(rig: Rig) -> tuple[bytes, Any]:
    view = engine.view(rig.state, rig.now, "x")
    return engine.dump(rig.state), (view.targets, view.workers)


EngineMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestEngineMachine = EngineMachine.TestCase
