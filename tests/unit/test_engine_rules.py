"""Each rule of the engine, Given/When/Then on a hand-driven fleet."""

from __future__ import annotations

from itertools import pairwise

import pytest

from supervisor.core.inputs import (
    CheckEnded,
    GapSeen,
    OverrideCleared,
    OverrideSet,
    PolicySet,
    ProbeAsked,
    ProbeEnded,
    WorkerLeft,
)
from supervisor.wire.messages import OverrideRecord, ProbeResult
from supervisor.wire.vocabulary import FaultKind, OverrideState, State
from tests.support.engine_kit import ONE, TWO, Rig


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


# --- condemnation


def test_a_run_condemns_at_n_with_quorum_and_says_why() -> None:
    rig = Rig()
    busy(rig)  # 20 attempts a second: N = 5 + 4
    spread(rig, 8)
    assert rig.state_of() is State.HEALTHY
    spread(rig, 1)
    assert rig.state_of() is State.UNHEALTHY
    verdict = rig.events("verdict", "unhealthy")[0]
    assert verdict.evidence["rule"] == "run"
    assert verdict.evidence["run"] == 9
    assert verdict.evidence["bad_workers"] == 4
    assert "9 attempts in a row failed" in verdict.reason
    assert rig.told[ONE].admit == 0.0
    assert rig.told[ONE].rank > rig.told[TWO].rank


def test_kinds_that_are_no_fault_of_the_target_never_count() -> None:
    rig = Rig()
    for kind in (FaultKind.LOCAL, FaultKind.BAD_REQUEST, FaultKind.CONCURRENCY):
        spread(rig, 20, kind)
    assert rig.state_of() is State.HEALTHY


def test_one_worker_alone_condemns_nothing_that_others_use_and_is_flagged() -> None:
    rig = Rig()
    for _ in range(60):
        rig.now += 250
        rig.fail("w0", n=3)
        for worker in ("w1", "w2", "w3"):
            rig.ok(worker)
        rig.answer(None)
        rig.wait(0.1)
    assert rig.state_of() is State.HEALTHY
    assert not rig.events("verdict")
    assert {e.worker for e in rig.events("worker", "flagged")} == {"w0"}


def test_two_of_four_are_no_quorum() -> None:
    rig = Rig()
    for i in range(60):
        rig.now += 200
        rig.fail(f"w{i % 2}", n=3)
        rig.ok(f"w{2 + i % 2}")
        rig.answer(None)
    assert rig.state_of() in (State.HEALTHY, State.DEGRADED)


def test_a_lone_active_worker_waits_for_anothers_probe() -> None:
    """Given others with calls that do not use the target now, their probe decides."""
    rig = Rig()
    rig.fail("w0", n=6)
    assert rig.state_of() is State.HEALTHY
    assert rig.probes[0].worker != "w0"
    rig.answer(None)
    assert rig.state_of() is State.HEALTHY
    assert rig.state.workers["w0"].targets[ONE].flagged


def test_a_lone_active_worker_is_believed_when_anothers_probe_fails() -> None:
    rig = Rig()
    rig.fail("w0", n=6)
    rig.answer(FaultKind.SERVER)
    assert rig.state_of() is State.UNHEALTHY


def test_the_only_worker_is_its_own_quorum() -> None:
    rig = Rig(workers=1)
    rig.fail("w0", n=5)
    assert rig.state_of() is State.UNHEALTHY


def test_most_of_what_finishes_failing_condemns_without_a_run() -> None:
    rig = Rig()
    for _ in range(12):
        rig.now += 200
        for worker in rig.sessions:
            rig.ok(worker)
            rig.fail(worker, n=4)
            rig.answer(None)
    assert rig.state_of() is State.UNHEALTHY
    assert rig.target().v.rule in ("rate", "run")


def test_overdue_attempts_condemn_before_they_fail() -> None:
    rig = Rig()
    for i in range(8):
        rig.now += 60
        rig.hang(f"w{i % 4}")
    assert rig.state_of() is State.UNHEALTHY
    assert rig.target().totals.faults == 0


def test_a_quiet_fleet_decides_by_probes() -> None:
    rig = Rig(workers=2, sessions=1)
    rig.fail("w0")
    rig.now += 500
    rig.fail("w1")
    assert len(rig.probes) == 1
    rig.answer(FaultKind.SERVER)
    assert rig.state_of() is State.UNHEALTHY
    assert rig.target().v.rule == "suspicion"


def test_probes_of_a_suspicion_go_one_after_the_other_to_others_first() -> None:
    rig = Rig()
    rig.fail("w0")
    rig.fail("w1")
    first = rig.probes.pop()
    assert first.worker in ("w2", "w3")
    assert rig.target().probe is not None
    rig.send(ProbeEnded(ProbeResult(first.worker, first.id, ONE, FaultKind.SERVER)))
    second = rig.probes.pop()
    assert second.worker in {"w2", "w3"} - {first.worker}


def test_one_good_probe_ends_the_suspicion_for_ten_seconds() -> None:
    rig = Rig()
    rig.fail("w0")
    rig.fail("w1")
    assert rig.answer(None) == 1
    assert rig.target().run == 0
    rig.fail("w0")
    rig.fail("w1")
    assert not rig.probes
    rig.wait(11)
    rig.fail("w2")
    assert rig.probes


def test_a_failed_check_is_a_hint_for_suspicion_and_never_for_recovery() -> None:
    rig = Rig()
    rig.send(CheckEnded("one", False, "models", "503"))
    rig.fail("w0")
    assert len(rig.probes) == 1
    rig = Rig()
    rig.condemn()
    rig.send(CheckEnded("one", True, "models"))
    rig.wait(60, probes=FaultKind.SERVER)
    assert rig.state_of() in (State.UNHEALTHY, State.PROBING)


def test_noise_does_not_condemn_but_degrades() -> None:
    rig = Rig()
    for i in range(300):
        rig.now += 100
        rig.ok(f"w{i % 4}", n=2)
        if i % 2:
            rig.fail(f"w{(i // 2) % 4}")
        rig.answer(None)
        rig.wait(0.1)
    assert rig.state_of() is State.DEGRADED
    assert rig.told[ONE].admit == pytest.approx(0.1)
    assert rig.told[TWO].rank == 0
    busy(rig, 80)
    assert rig.state_of() is State.HEALTHY


def test_slow_first_outputs_degrade() -> None:
    rig = Rig()
    for i in range(30):
        c = rig.counters[f"w{i % 4}", ONE]
        c.started += 1
        c.ok += 1
        c.first += 1
        c.histogram[11] += 1  # 1.6 to 2.2 s
        rig.report(f"w{i % 4}")
        rig.wait(0.5)
    assert rig.state_of() is State.DEGRADED
    assert rig.target().v.rule == "slow"


def test_a_gap_condemns_nobody_new_for_ten_seconds() -> None:
    rig = Rig()
    rig.send(GapSeen("trimmed"))
    spread(rig, 40)
    assert rig.state_of() is State.HEALTHY
    rig.wait(11)
    spread(rig, 1)
    assert rig.state_of() is State.UNHEALTHY


# --- the way back


def test_two_good_probes_a_second_apart_then_a_ramp_then_healthy() -> None:
    rig = Rig()
    rig.condemn()
    condemned = rig.events("verdict", "unhealthy")[0].at_ms
    rig.wait(2.4, probes=True)
    assert not rig.events("probe", "good")
    rig.wait(3.6, probes=True)
    goods = [e.at_ms for e in rig.events("probe", "good")]
    assert goods[0] - condemned >= 2_900
    assert goods[1] - goods[0] >= 1_000
    assert rig.state_of() is State.RAMPING
    shares: list[float] = []
    for _ in range(130):
        rig.wait(0.1)
        if rig.told[ONE].admit not in shares:
            shares.append(rig.told[ONE].admit)
    assert shares == [0.1, 0.25, 0.5, 1.0]
    assert rig.state_of() is State.HEALTHY
    opened, closed = rig.events("incident", "opened"), rig.events("incident", "closed")
    assert opened[0].incident == closed[0].incident != ""


def test_without_good_probes_nothing_comes_back() -> None:
    rig = Rig()
    rig.condemn()
    rig.wait(300, probes=FaultKind.SERVER)
    assert rig.state_of() in (State.UNHEALTHY, State.PROBING)
    assert 40 <= len(rig.events("probe", "fault")) <= 62


def test_probes_take_turns_and_never_overlap() -> None:
    rig = Rig()
    rig.condemn()
    rig.effects.clear()
    rig.wait(40, probes=FaultKind.SERVER)
    probers = [e.worker for e in rig.events("probe")]
    assert set(probers) == {"w0", "w1", "w2", "w3"}
    assert all(a != b for a, b in pairwise(probers))


def test_a_lost_probe_returns_its_permit_and_counts_as_nothing() -> None:
    rig = Rig()
    rig.condemn()
    rig.wait(3.5)
    assert rig.state_of() is State.PROBING
    assert len(rig.probes) == 1
    first = rig.probes.pop()
    rig.wait(9)
    assert rig.events("probe", "lost")
    assert rig.probes[0].worker != first.worker
    # Its result, when it comes at last, is of no use to anybody.
    rig.send(ProbeEnded(ProbeResult(first.worker, first.id, ONE)))
    assert rig.state.counters["probes_unknown"] == 1
    assert rig.target().v.goods == 0


def test_a_probe_that_answers_too_late_for_callers_is_not_good() -> None:
    rig = Rig()
    rig.condemn()
    rig.wait(3.2)
    order = rig.probes.pop()
    rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, None, 3_500, 3_600)))
    assert rig.target().v.goods == 0
    assert rig.state_of() is State.UNHEALTHY


def test_draining_workers_get_no_probes() -> None:
    rig = Rig()
    rig.condemn()
    for worker in ("w0", "w1", "w2"):
        rig.state.workers[worker].draining = True
    for _ in range(30):
        rig.now += 1_000
        for worker in rig.sessions:
            rig.state.workers[worker].last_at_ms = rig.now
        rig.wait(0)
        rig.beat()
        for worker in ("w0", "w1", "w2"):
            rig.state.workers[worker].draining = True
        rig.answer(FaultKind.SERVER)
    assert rig.events("probe")


def test_a_failed_ramp_makes_the_next_one_later() -> None:
    rig = Rig()
    rig.condemn()
    waits: list[int] = []
    for _ in range(4):
        begun = rig.now
        while rig.state_of() is not State.RAMPING:
            rig.wait(0.1, probes=True)
            assert rig.now - begun < 200_000
        waits.append(rig.now - begun)
        spread(rig, 4)
        assert rig.state_of() is State.UNHEALTHY
    assert waits[3] >= 40_000 > waits[0]
    assert waits == sorted(waits)


def test_one_fault_never_ends_a_ramp() -> None:
    """The trap of an earlier draft: one fault in a hundred kept a target shut for minutes."""
    rig = Rig()
    rig.condemn()
    while rig.state_of() is not State.RAMPING:
        rig.wait(0.1, probes=True)
    for i in range(24):
        rig.ok(f"w{i % 4}", n=3)
        if i % 8 == 0:
            rig.fail(f"w{i % 4}")
        rig.answer(None)
        rig.wait(0.5)
    assert rig.state_of() is State.HEALTHY


def test_one_broken_worker_does_not_end_a_ramp() -> None:
    rig = Rig()
    rig.condemn()
    while rig.state_of() is not State.RAMPING:
        rig.wait(0.1, probes=True)
    for _ in range(26):
        rig.fail("w0", n=2)
        for worker in ("w1", "w2", "w3"):
            rig.ok(worker)
        rig.wait(0.5, probes=True)
    assert rig.state_of() in (State.HEALTHY, State.DEGRADED)


def test_the_outages_own_faults_do_not_degrade_after_it() -> None:
    rig = Rig()
    rig.condemn()
    while rig.state_of() is not State.HEALTHY:
        rig.wait(0.5, probes=True)
    busy(rig, 10)
    assert rig.state_of() is State.HEALTHY
    assert len(rig.events("verdict", "degraded")) == 0


# --- 429


def test_a_429_holds_the_fleet_off_as_asked_then_ramps_without_a_probe() -> None:
    rig = Rig()
    rig.counters["w0", ONE].retry_after_ms = 10_000
    rig.fail("w0", kind=FaultKind.RATE_LIMIT)
    assert rig.state_of() is State.LIMITED
    assert rig.told[ONE].hold_off_until_at_ms == rig.now + 10_000
    rig.wait(9.5)
    assert rig.state_of() is State.LIMITED
    rig.wait(1)
    assert rig.state_of() is State.RAMPING
    rig.wait(13)
    assert rig.state_of() is State.HEALTHY
    assert not rig.events("probe")


@pytest.mark.parametrize(("agree", "seconds"), [(False, 60), (True, 600)])
def test_a_retry_after_is_clamped_unless_two_agree(agree: bool, seconds: int) -> None:
    rig = Rig()
    for worker in ("w0", "w1")[: 1 + agree]:
        rig.counters[worker, ONE].retry_after_ms = 3_600_000
        rig.fail(worker, kind=FaultKind.RATE_LIMIT)
    assert rig.target().v.hold_until_at_ms == rig.now + seconds * 1_000


def test_without_retry_after_the_hold_off_doubles() -> None:
    rig = Rig()
    holds: list[int] = []
    for n in range(5):
        rig.fail(f"w{n % 4}", kind=FaultKind.RATE_LIMIT)
        assert rig.state_of() is State.LIMITED
        holds.append(rig.target().v.hold_until_at_ms - rig.now)
        while rig.state_of() is not State.RAMPING:
            rig.wait(0.1)
    assert holds == [2_000, 4_000, 8_000, 16_000, 30_000]


def test_one_worker_alone_cannot_hold_the_fleet_off_for_ever() -> None:
    rig = Rig()
    for _ in range(12):
        for worker in ("w1", "w2", "w3"):
            rig.ok(worker, n=2)
        rig.fail("w0", kind=FaultKind.RATE_LIMIT)
        rig.wait(10)
    assert len(rig.events("verdict", "limited")) == 2
    assert {e.worker for e in rig.events("worker", "flagged")} == {"w0"}


# --- credentials


def test_two_workers_condemn_a_key_for_all_targets_of_its_provider() -> None:
    other = "tts:one:voice"
    rig = Rig(targets=(ONE, TWO, other))
    rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    assert rig.state_of() is State.HEALTHY
    rig.fail("w1", kind=FaultKind.AUTHENTICATION)
    assert rig.state_of() is State.UNHEALTHY
    assert rig.state_of(other) is State.UNHEALTHY
    assert rig.state_of(TWO) is State.HEALTHY
    assert rig.told[ONE].condemned_keys == ("k1",)
    alarm = rig.events("alarm")[0]
    assert "k1" in alarm.reason
    assert "one" in alarm.reason


def test_a_403_condemns_the_target_alone() -> None:
    sibling = "llm:one:bigger"
    rig = Rig(targets=(ONE, TWO, sibling))
    rig.fail("w0", kind=FaultKind.PERMISSION)
    rig.fail("w1", kind=FaultKind.PERMISSION)
    assert rig.state_of() is State.UNHEALTHY
    assert rig.state_of(sibling) is State.HEALTHY


def test_a_refused_key_that_one_worker_has_leaves_the_others_alone() -> None:
    rig = Rig()
    rig.counters["w0", ONE].fp = "bad"
    rig.fail("w0", kind=FaultKind.AUTHENTICATION, n=2)
    assert rig.state_of() is State.HEALTHY
    assert rig.told[ONE].condemned_keys == ("bad",)
    assert rig.told[ONE].admit == 1.0


def test_one_refusal_of_a_shared_key_is_settled_by_anothers_probe() -> None:
    rig = Rig()
    rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    assert rig.probes[0].worker != "w0"
    rig.answer(FaultKind.AUTHENTICATION)
    assert rig.state_of() is State.UNHEALTHY
    assert rig.target().v.by_key


def test_a_key_comes_back_by_two_good_probes() -> None:
    rig = Rig()
    rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    rig.fail("w1", kind=FaultKind.AUTHENTICATION)
    rig.probes.clear()
    rig.target().probe = None
    rig.wait(9.5, probes=True)
    assert not rig.events("probe", "good")
    rig.wait(14.5, probes=True)
    assert rig.told[ONE].condemned_keys == ()
    assert rig.state_of() in (State.RAMPING, State.HEALTHY)


def test_a_new_key_is_tried_at_once() -> None:
    rig = Rig()
    rig.fail("w0", kind=FaultKind.QUOTA)
    rig.fail("w1", kind=FaultKind.QUOTA)
    rig.answer(FaultKind.QUOTA)
    rig.counters["w2", ONE].fp = "k2"
    rig.report("w2")
    rig.probes.clear()
    rig.target().probe = None
    rig.wait(0.5)
    assert rig.probes[0].worker == "w2"


# --- nothing left


def test_panic_admits_all_in_order_of_evidence_without_retries() -> None:
    rig = Rig()
    busy(rig, 5, 2)
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
    assert rig.told[ONE].overdue_ms == 1_600
    busy(rig, 10)
    told = rig.told[ONE]
    assert 200 <= told.hedge_ms <= 280
    assert told.first_output_ms == 1_000
    assert 280 <= told.overdue_ms <= 420
