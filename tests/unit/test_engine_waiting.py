"""Hangs: what waited in vain is evidence of its own."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind, State
from tests.support.engine_kit import ONE, Rig, busy


def test_attempts_that_wait_in_vain_are_a_shorter_run_than_faults() -> None:
    """Not one first output anywhere while they waited: a busier fleet needs hardly more of them."""
    rig = Rig()
    busy(rig)  # 20 attempts a second: nine faults in a row
    for i in range(5):
        rig.now += 50
        rig.hang(f"w{i % 4}")
    assert rig.state_of() is State.UNHEALTHY
    verdict = rig.events("verdict", "unhealthy")[0]
    assert verdict.evidence["run"] == 5
    assert "no first output anywhere" in verdict.reason


def test_a_first_output_anywhere_ends_the_wait() -> None:
    rig = Rig()
    busy(rig)
    for i in range(20):
        rig.now += 50
        rig.hang(f"w{i % 4}")
        if i % 4 == 3:
            rig.ok("w3")
    assert rig.state_of() is State.HEALTHY


def test_waiting_that_one_worker_alone_does_condemns_nothing() -> None:
    rig = Rig()
    busy(rig)
    rig.hang("w0", n=7)
    assert rig.state_of() is State.HEALTHY


def test_what_waited_and_was_given_up_or_timed_out_still_counts() -> None:
    rig = Rig()
    busy(rig)
    for i, worker in enumerate(("w0", "w1", "w2", "w3", "w0")):
        rig.now += 50
        rig.hang(worker)
        counters = rig.counters[worker, ONE]
        counters.in_flight -= 1
        counters.overdue -= 1
        if i % 2:
            counters.given_up += 1
            counters.abandoned += 1
            rig.report(worker)
        else:
            counters.started -= 1  # `fail` begins it once more
            rig.fail(worker, kind=FaultKind.FIRST_OUTPUT_TIMEOUT)
    assert rig.state_of() is State.UNHEALTHY


def test_no_probe_is_spent_on_a_hang_that_callers_tell_of_sooner() -> None:
    rig = Rig()
    busy(rig, 10, 3)  # 12 attempts a second: three more are overdue long before a probe would be
    rig.hang("w0")
    rig.hang("w1")
    assert not rig.probes
    rig.fail("w0")
    assert rig.probes  # an error says nothing of how soon the next ones end


def test_one_late_attempt_of_a_tiny_fleet_is_looked_into_when_it_stays_late() -> None:
    rig = Rig(workers=1, sessions=1)
    rig.hang("w0")
    assert not rig.probes
    overdue_ms = rig.told[ONE].overdue_ms
    rig.wait(overdue_ms / 2000 - 0.1)
    assert not rig.probes
    rig.wait(0.2)
    assert len(rig.probes) == 1
