"""The way back, hold-offs and refused keys, Given/When/Then on a hand-driven fleet."""

from __future__ import annotations

from itertools import pairwise

import pytest

from supervisor.core.inputs import (
    ProbeEnded,
)
from supervisor.wire.messages import ProbeResult
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.engine_kit import ONE, TWO, Rig, busy, spread

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
