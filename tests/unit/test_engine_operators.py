"""Panic, operators, leaders and the life of targets, Given/When/Then on a hand-driven fleet."""

from __future__ import annotations

from supervisor.core import engine
from supervisor.core.credentials import MAX_KEYS
from supervisor.core.inputs import (
    OverrideCleared,
    OverrideSet,
    PolicySet,
    ProbeAsked,
    WorkerLeft,
)
from supervisor.wire.codec import MAX_BYTES, encode
from supervisor.wire.messages import OverrideRecord
from supervisor.wire.vocabulary import FaultKind, OverrideState, State
from tests.support.engine_kit import ONE, TWO, Rig, busy, spread

# --- nothing left


def test_panic_admits_all_in_order_of_evidence_without_retries() -> None:
    rig = Rig()
    busy(rig, 5, 5)
    rig.condemn(ONE)
    rig.condemn(TWO)
    assert rig.told[ONE].panic
    assert rig.told[TWO].panic
    assert {s.admit for s in rig.told.values()} == {1.0}
    assert rig.told[ONE].retry_ratio == 0.0
    assert rig.state_of(ONE) in (State.UNHEALTHY, State.PROBING)
    assert any("panic" in e.reason for e in rig.events("alarm"))
    assert rig.told[ONE].rank == 0  # it worked for some of the last minute, the other never did


def test_a_refused_key_is_left_out_of_panic() -> None:
    rig = Rig()
    rig.condemn(TWO)
    rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    rig.fail("w1", kind=FaultKind.AUTHENTICATION)
    assert rig.told[ONE].admit == 0.0
    assert rig.told[TWO].panic


def test_what_ramps_is_let_in_whole_when_nothing_else_is_left() -> None:
    rig = Rig(targets=(ONE,))
    rig.condemn()
    assert rig.told[ONE].panic
    while rig.state_of() is not State.RAMPING:
        rig.wait(0.1, probes=True)
    assert rig.told[ONE].admit == 1.0
    assert not rig.told[ONE].panic


# --- operators


def override(rig: Rig, scope: str, state: OverrideState, seconds: int = 60) -> None:
    record = OverrideRecord(scope, state, "because", "op", rig.now, rig.now + seconds * 1_000)
    rig.send(OverrideSet(record))


def test_overrides_lie_over_the_verdict_and_expire() -> None:
    rig = Rig()
    override(rig, ONE, OverrideState.FORCED_UNHEALTHY, 10)
    assert rig.told[ONE].admit == 0.0
    assert rig.state_of() is State.HEALTHY
    rig.wait(11)
    assert rig.told[ONE].admit == 1.0
    assert rig.told[ONE].override is None
    assert len(rig.events("operator")) == 2


def test_a_targets_override_wins_over_its_providers() -> None:
    rig = Rig()
    override(rig, "provider:one", OverrideState.FORCED_UNHEALTHY)
    override(rig, ONE, OverrideState.FORCED_HEALTHY)
    assert rig.told[ONE].admit == 1.0
    rig.send(OverrideCleared(ONE, "op"))
    assert rig.told[ONE].admit == 0.0


def test_observe_only_tells_the_truth_and_changes_nothing() -> None:
    rig = Rig()
    override(rig, ONE, OverrideState.OBSERVE_ONLY)
    rig.condemn()
    assert rig.told[ONE].admit == 1.0
    assert rig.told[ONE].state is State.UNHEALTHY


def test_an_asked_probe_goes_out_once() -> None:
    rig = Rig()
    rig.send(ProbeAsked(ONE, "op"))
    rig.send(ProbeAsked(ONE, "op"))
    assert len(rig.probes) == 1
    rig.send(ProbeAsked("llm:no:body", "op"))
    assert rig.state.counters["probes_refused"] == 2


def test_a_policy_holds_at_once_and_a_wrong_one_not_at_all() -> None:
    rig = Rig()
    rig.send(PolicySet("fleet", {"run_base": 30, "suspect_run": 90, "rate_finished": 900}))
    spread(rig, 25)
    assert rig.state_of() is State.HEALTHY
    rig.send(PolicySet("fleet", {"run_base": -1}))
    assert rig.state.counters["policies_refused"] == 1
    rig.send(PolicySet("fleet", {}))
    spread(rig, 1)
    assert rig.state_of() is State.UNHEALTHY


# --- leaders, revisions, targets


def test_a_new_leader_keeps_verdicts_and_publishes_once_with_higher_revisions() -> None:
    rig = Rig()
    rig.condemn()
    override(rig, TWO, OverrideState.OBSERVE_ONLY)
    before, told = rig.state.revision, dict(rig.told)
    rig.effects.clear()
    rig.reload()
    (publish,) = rig.published()
    assert publish.revision == before + 1
    assert {s.target for s in publish.snapshots} == {ONE, TWO}
    assert {s.epoch for s in publish.snapshots} == {2}
    assert rig.told[ONE].state == told[ONE].state
    assert rig.told[TWO].override is OverrideState.OBSERVE_ONLY
    rig.beat()
    rig.wait(60, probes=True)
    assert rig.state_of() is State.HEALTHY


def test_unchanged_snapshots_are_not_published_but_kept_alive() -> None:
    rig = Rig()
    rig.wait(5)
    n = len(rig.published())
    rig.wait(120)
    assert len(rig.published()) == n
    rig.wait(100)
    assert len(rig.published()) == n + 1


def test_a_target_nobody_holds_is_removed_after_ten_minutes() -> None:
    rig = Rig()
    for worker in list(rig.sessions):
        rig.send(WorkerLeft(worker))
        rig.silent.add(worker)
    rig.wait(590)
    assert ONE in rig.state.targets
    rig.wait(20)
    assert rig.state.targets == {}
    assert ONE not in rig.told


def test_deadlines_follow_the_targets_own_first_outputs() -> None:
    rig = Rig()
    assert rig.told[ONE].overdue_ms == 1_200
    busy(rig, 10)
    told = rig.told[ONE]
    assert 200 <= told.hedge_ms <= 280
    assert told.first_output_ms == 1_000
    assert 280 <= told.overdue_ms <= 420


def test_an_asked_probe_obeys_the_cap_of_the_hour() -> None:
    rig = Rig(workers=2)
    cap = rig.target(ONE).policy.probe_cap_per_hour
    rig.target(ONE).probe_log.extend([rig.now] * cap)
    sent = len(rig.probes)
    rig.send(ProbeAsked(ONE, "ann"))
    assert len(rig.probes) == sent
    assert rig.events("operator")[-1].reason == "no probe: those of this hour are spent"
    # An hour later there are new ones.
    rig.now += 3_600_001
    rig.beat()
    rig.send(ProbeAsked(ONE, "ann"))
    assert len(rig.probes) == sent + 1


def test_keys_without_number_leave_a_strategy_that_can_be_read() -> None:
    rig = Rig(workers=1)
    for n in range(MAX_KEYS + 44):
        for target in (ONE, TWO):
            rig.counters["w0", target].fp = f"{n:064}"
        rig.fail("w0", kind=FaultKind.AUTHENTICATION)
        rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    assert len(rig.state.keys) == MAX_KEYS
    assert rig.state.counters["keys_over"] == 88
    assert len(encode(rig.told[ONE])) < MAX_BYTES


def test_the_view_names_the_next_probe_of_what_is_shut_alone() -> None:
    rig = Rig()
    rig.condemn(ONE)
    assert _next_probe(rig) > rig.now
    rig.wait(60, probes=True)
    assert rig.state_of() is State.HEALTHY
    assert _next_probe(rig) == 0


def _next_probe(rig: Rig) -> int:
    shown = {t.id: t for t in engine.view(rig.state, rig.now, "r").targets}
    return shown[ONE].next_probe_at_ms
