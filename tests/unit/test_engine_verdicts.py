"""Condemning and degrading, Given/When/Then on a hand-driven fleet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.inputs import (
    CheckEnded,
    GapSeen,
    ProbeEnded,
)
from supervisor.wire.messages import ProbeResult
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.engine_kit import ONE, TWO, Rig, busy, spread


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


def test_a_hedge_of_a_well_worker_makes_no_majority_of_the_broken_ones() -> None:
    """Two of four moved to the standby because they are broken; a third has only sent one hedge there."""
    rig = Rig()
    rig.ok("w2", TWO)
    for i in range(20):
        rig.fail(f"w{i % 2}", TWO)
    assert rig.state_of(TWO) is State.HEALTHY
    assert rig.probes
    assert rig.probes[0].worker in ("w2", "w3")
    rig.answer(None)
    assert rig.state_of(TWO) is State.HEALTHY


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


def test_answers_under_way_are_not_yet_failures() -> None:
    """Errors come sooner than answers end: what a fleet just started sees first is no share of anything."""
    rig = Rig(workers=1)
    counters = rig.counters["w0", ONE]
    for _ in range(5):
        counters.started += 1
        counters.in_flight += 1
        counters.first += 1
        rig.fail("w0", n=1)
        rig.answer(None)
    assert rig.target().totals.faults == 5
    assert rig.target().totals.ok == 0
    assert rig.state_of() is State.HEALTHY


def test_a_key_in_doubt_takes_two_probes_whatever_the_run() -> None:
    rig = Rig()
    busy(rig)
    rig.fail("w0", kind=FaultKind.AUTHENTICATION)
    for _ in range(2):
        order = rig.probes.pop()
        rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, FaultKind.SERVER)))
    assert not rig.probes


def test_where_much_fails_by_itself_no_probe_is_saved() -> None:
    rig = Rig()
    for _ in range(10):  # one in ten fails
        for worker in rig.sessions:
            rig.ok(worker, n=2)
            rig.fail(worker, n=1 if worker == "w0" else 0)
        rig.wait(1.0, probes=True)
    busy(rig, 12, 1)  # a suspicion comes at most every ten seconds
    for i in range(6):
        rig.fail(f"w{i % 3}")
    assert rig.state_of() is State.HEALTHY
    order = rig.probes.pop()
    rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, FaultKind.SERVER)))
    assert rig.state_of() is State.HEALTHY


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


def test_one_failed_attempt_of_a_tiny_fleet_takes_a_probe_more() -> None:
    rig = Rig(workers=1, sessions=1)
    rig.fail("w0")
    for failed in range(3):
        assert rig.state_of() is State.HEALTHY, failed
        order = rig.probes.pop()
        rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, FaultKind.SERVER)))
    assert rig.state_of() is State.UNHEALTHY


def test_looking_into_single_failures_leaves_probes_for_the_rest() -> None:
    rig = Rig(workers=1, sessions=1)
    sent = 0
    for _ in range(200):
        rig.fail("w0")
        sent += rig.answer(None)
        rig.ok("w0")
        rig.wait(11)
    assert sent <= 60
    rig.fail("w0", n=2)
    assert rig.probes


def test_one_failed_attempt_of_a_busier_fleet_starts_nothing() -> None:
    rig = Rig()
    busy(rig)
    rig.fail("w0")
    rig.wait(1)
    assert not rig.probes


def test_a_longer_run_that_most_workers_see_takes_one_probe() -> None:
    rig = Rig()
    busy(rig, 10, 2)  # 8 attempts a second: N = 5 + 3
    for worker in ("w0", "w1", "w2"):
        rig.fail(worker)
    assert len(rig.probes) == 1
    order = rig.probes.pop()
    rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, FaultKind.SERVER)))
    assert rig.state_of() is State.UNHEALTHY
    assert rig.target().v.rule == "suspicion"


def test_a_longer_run_of_one_worker_takes_all_probes() -> None:
    rig = Rig()
    busy(rig, 10, 2)
    rig.fail("w0", n=3)
    order = rig.probes.pop()
    rig.send(ProbeEnded(ProbeResult(order.worker, order.id, ONE, FaultKind.SERVER)))
    assert rig.state_of() is State.HEALTHY
    assert len(rig.probes) == 1


def test_probes_of_a_suspicion_go_one_after_the_other_to_others_first() -> None:
    rig = Rig()
    rig.fail("w0")
    first = rig.probes.pop()
    assert first.worker != "w0"
    assert rig.target().probe is not None
    rig.fail("w1")
    assert not rig.probes
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


@given(st.lists(st.tuples(st.sampled_from("fhog"), st.integers(1, 4)), max_size=60), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_whatever_one_worker_sees_it_condemns_nothing_that_others_use(
    deeds: list[tuple[str, int]], broken: int
) -> None:
    """Given three workers that use the target happily, whatever the fourth reports, it stays."""
    rig = Rig()
    one, others = f"w{broken}", [w for w in rig.sessions if w != f"w{broken}"]
    for deed, n in deeds:
        if deed == "f":
            rig.fail(one, n=n)
        elif deed == "h":
            rig.hang(one, n=n)
        elif deed == "g":
            rig.counters[one, ONE].given_up += n
            rig.fail(one, kind=FaultKind.CUT, n=n)
        else:
            rig.ok(one, n=n)
        for worker in others:
            rig.ok(worker)
        rig.answer(None)
        rig.wait(0.2)
    assert not rig.events("verdict", "unhealthy")


@pytest.mark.parametrize("mode", ["f", "h"])
def test_a_standby_that_only_broken_workers_use_is_not_condemned(mode: str) -> None:
    """Given two broken of four, when they alone move to the standby and fail there, then others' probes decide."""
    rig = Rig()
    for _ in range(40):
        for worker in ("w0", "w1"):
            if mode == "f":
                rig.fail(worker, TWO)
            else:
                rig.hang(worker, TWO)
            rig.answer_by({"w2", "w3"}, FaultKind.CONNECT)
        rig.wait(0.5)
    assert rig.state_of(TWO) is State.HEALTHY
