"""The container's own breaker and retry budget in the link's core. Time is set by the tests."""

from __future__ import annotations

from supervisor.core.breaker import OPEN_S
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.link_fleet import A, B, V
from tests.support.link_world import USE, World


def test_core_three_faults_in_a_row_open_the_local_breaker_and_tell_the_listeners():
    w = World()
    w.fail(times=2)
    assert not w.open()
    told = len(w.seen)
    w.fail()
    assert w.open()
    assert len(w.seen) > told
    assert w.core.local_open() == (A,)
    w.now += OPEN_S
    assert not w.open()


def test_core_hanging_attempts_open_the_local_breaker_before_they_fail():
    w = World()
    for _ in range(3):
        w.start()
    w.now += 1.7
    w.core.tick()
    assert w.open()


def test_core_late_attempts_among_many_that_are_answered_are_no_hang():
    w = World()
    for _ in range(20):
        w.start()  # one in two never answers ...
        answered = w.start()
        w.now += 1.7
        w.core.tick()
        w.core.first_output(answered, 1_700)  # ... but the others do
        w.core.succeeded(answered, USE)
        assert not w.open()
    assert w.counts().overdue == 20


def test_core_late_attempts_given_up_after_another_was_answered_are_no_faults_for_the_breaker():
    w = World()
    late = [w.start(), w.start()]
    w.now += 1.7
    w.core.tick()
    w.core.first_output(w.start(), 100)
    for attempt in late:
        w.core.abandoned(attempt)
    assert w.counts().given_up == 2
    w.fail(times=2)
    assert not w.open()
    w.fail()
    assert w.open()


def test_core_the_last_admitted_target_of_a_role_is_never_put_off():
    w = World()
    w.fail(A, times=5)
    w.fail(B, times=5)
    w.fail(V, times=5)
    assert w.open(A)
    assert not w.open(B)
    assert not w.open(V)


def test_core_a_target_the_leader_has_shut_is_nobody_to_fall_back_to():
    w = World()
    w.publish(B, State.UNHEALTHY, admit=0.0)
    w.fail(A, times=5)
    assert not w.open(A)


def test_core_a_success_closes_the_local_breaker_at_once():
    w = World()
    late = w.start()
    w.fail(times=3)
    assert w.open()
    w.core.succeeded(late, USE)
    assert not w.open()


def test_core_the_local_breaker_never_says_anything_to_the_leader_but_counts():
    w = World()
    w.fail(times=3)
    report = w.core.report(0)
    assert (report.epoch, report.revision, report.refused) == (0, 0, {})


def test_core_retries_end_when_the_budget_is_spent_and_come_back_with_successes():
    w = World()
    w.fail(times=5)
    assert not w.core.rules.by_target[A].retry_allowed
    for _ in range(2):
        w.succeed()
    assert w.core.rules.by_target[A].retry_allowed
    assert w.core.rules.by_target[B].retry_allowed


def test_core_a_local_fault_costs_no_retries():
    w = World()
    w.fail(kind=FaultKind.LOCAL, times=20)
    assert w.core.rules.by_target[A].retry_allowed


def test_core_panic_means_no_retries():
    w = World()
    w.publish(panic=True)
    assert not w.core.rules.by_target[A].retry_allowed


def test_core_rules_that_did_not_change_are_told_to_nobody():
    w = World()
    told = len(w.seen)
    for _ in range(20):
        w.succeed()
        w.core.tick()
        w.core.rebuild()
    assert len(w.seen) == told
