"""The container's own breaker and its retry budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.breaker import COUNTED_KINDS, OPEN_S, RUN, Breaker, may_open
from supervisor.core.budget import CAP, HALF, RetryBudget
from supervisor.wire.vocabulary import FaultKind

NOT_COUNTED = sorted(set(FaultKind) - COUNTED_KINDS)


def _broken(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(RUN):
        breaker.fault(FaultKind.SERVER)
    assert breaker.due(now)
    breaker.open(now)
    return breaker


def test_breaker_given_three_faults_in_a_row_then_it_is_off_for_five_seconds():
    breaker = Breaker()
    for _ in range(2):
        breaker.fault(FaultKind.SERVER)
        assert not breaker.due(100.0)
    breaker.fault(FaultKind.CONNECT)
    assert breaker.due(100.0)
    breaker.open(100.0)
    assert breaker.is_open(100.0)
    assert breaker.is_open(100.0 + OPEN_S - 0.001)
    assert not breaker.is_open(100.0 + OPEN_S)


def test_breaker_given_a_success_between_then_the_run_begins_again():
    breaker = Breaker()
    for _ in range(10):
        breaker.fault(FaultKind.SERVER)
        breaker.fault(FaultKind.SERVER)
        assert not breaker.success()
    assert not breaker.due(100.0)


def test_breaker_given_it_is_open_when_a_success_comes_then_it_closes():
    breaker = _broken()
    assert breaker.success()
    assert not breaker.is_open(100.1)
    assert not breaker.due(100.1)


def test_breaker_given_the_time_is_over_then_one_more_fault_opens_it_at_once():
    breaker = _broken(100.0)
    later = 100.0 + OPEN_S
    breaker.fault(FaultKind.SERVER)
    assert breaker.due(later)


def test_breaker_given_it_is_open_then_more_faults_do_not_move_the_end():
    breaker = _broken(100.0)
    breaker.fault(FaultKind.SERVER)
    assert not breaker.due(101.0)
    assert breaker.open_until_mono == 100.0 + OPEN_S


@pytest.mark.parametrize("kind", NOT_COUNTED)
def test_breaker_given_a_fault_that_is_not_the_targets_doing_then_it_does_not_count(kind: FaultKind):
    breaker = Breaker()
    for _ in range(20):
        breaker.fault(kind)
    assert not breaker.due(100.0)


def test_breaker_given_what_does_not_count_then_it_is_local_bad_requests_and_concurrency():
    assert set(NOT_COUNTED) == {FaultKind.LOCAL, FaultKind.BAD_REQUEST, FaultKind.CONCURRENCY}


def test_breaker_given_overdue_attempts_then_they_count_like_faults_before_they_fail():
    breaker = Breaker()
    breaker.fault(FaultKind.SERVER)
    assert not breaker.due(100.0, overdue=1)
    assert breaker.due(100.0, overdue=2)


def test_breaker_given_no_other_target_is_admitted_then_it_may_not_open():
    assert not may_open(0)
    assert may_open(1)


def test_budget_given_more_than_one_fault_in_ten_then_retries_end_above_half_they_do_not():
    budget = RetryBudget()
    for _ in range(4):
        budget.fault(0.0)
        assert budget.allowed(0.0)
    budget.fault(0.0)
    assert budget.tokens == HALF
    assert not budget.allowed(0.0)


def test_budget_given_successes_then_retries_come_back():
    budget = RetryBudget()
    for _ in range(5):
        budget.fault(0.0)
    for _ in range(2):
        budget.success(0.1)
    assert budget.allowed(0.0)


def test_budget_given_a_floor_then_so_many_retries_a_minute_pass_even_when_spent():
    budget = RetryBudget()
    for _ in range(10):
        budget.fault(0.0)
    assert not budget.allowed(0.0, 0.0)
    assert budget.allowed(1.0, 0.5)
    budget.fault(1.0, 0.5)
    assert not budget.allowed(120.9, 0.5)
    assert budget.allowed(121.0, 0.5)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1.0)), max_size=200))
def test_budget_stays_within_its_cap(steps: list[tuple[bool, float]]):
    budget = RetryBudget()
    for at, (good, ratio) in enumerate(steps):
        if good:
            budget.success(ratio)
        else:
            budget.fault(float(at))
        assert 0.0 <= budget.tokens <= CAP
        assert budget.allowed(float(at)) == (budget.tokens > HALF)
