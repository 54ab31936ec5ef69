"""What a guarded call does after a fault."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.decide import Decision, GiveUp, Option, Retry, Situation, TryNext, backoff_ms, decide
from supervisor.wire.vocabulary import KIND_RULES, FaultKind

A, B = Option("llm:a:m"), Option("llm:b:m")


def failed(option: Option, kind: FaultKind = FaultKind.SERVER, attempts: int = 1, **fields: Any) -> Option:
    return dataclasses.replace(option, last=kind, attempts=attempts, **fields)


def after(
    *route: Option, budget_left_ms: int = 2000, total_attempts: int = 1, jitter: float = 0.0
) -> Decision:
    return decide(
        Situation(route=route, budget_left_ms=budget_left_ms, jitter=jitter, total_attempts=total_attempts)
    )


def test_the_best_untried_target_comes_first_at_once() -> None:
    assert after(failed(A), B) == TryNext(B.target)
    assert after(A, B) == TryNext(A.target)


def test_an_untried_target_is_asked_even_when_the_latency_budget_is_spent() -> None:
    assert after(failed(A), B, budget_left_ms=-500) == TryNext(B.target)


def test_the_same_target_is_asked_again_only_when_nothing_untried_is_left() -> None:
    assert after(failed(A), failed(B)) == Retry(A.target, 100)


@pytest.mark.parametrize("kind", [k for k, rule in KIND_RULES.items() if not rule.retry_same])
def test_a_fault_that_asking_again_cannot_mend_is_not_retried(kind: FaultKind) -> None:
    assert after(failed(A, kind)) == GiveUp("not_retryable")


@pytest.mark.parametrize(
    ("option", "budget_left_ms", "reason"),
    [
        (failed(A, attempts=2), 2000, "attempts"),
        (failed(A, retry_allowed=False), 2000, "retry_budget"),
        (failed(A, panic=True), 2000, "retry_budget"),
        (failed(A), 50, "latency_budget"),
        (failed(A, retry_after_ms=5_000), 2000, "latency_budget"),
    ],
)
def test_what_forbids_a_retry(option: Option, budget_left_ms: int, reason: str) -> None:
    assert after(option, budget_left_ms=budget_left_ms) == GiveUp(reason)


def test_a_retry_waits_as_long_as_the_provider_asks() -> None:
    assert after(failed(A, retry_after_ms=700)) == Retry(A.target, 700)


def test_a_stale_connection_is_tried_again_at_once_before_anybody_else() -> None:
    assert after(failed(A, FaultKind.LOCAL, again_at_once=True), B) == Retry(A.target, 0)


def test_a_target_given_up_on_a_verdict_comes_before_any_retry() -> None:
    given_up = dataclasses.replace(A, attempts=1)
    assert after(failed(B), given_up) == TryNext(A.target)


def test_nothing_admitted() -> None:
    assert after() == GiveUp("no_target")


def test_a_turn_has_a_bound_of_its_own() -> None:
    assert after(A, B, total_attempts=8) == GiveUp("attempts")


def test_backoff_doubles_is_capped_and_jittered_downwards() -> None:
    assert [backoff_ms(failed(A, attempts=n), 0.0) for n in (1, 2, 3, 4, 5, 60)] == [
        100,
        200,
        400,
        800,
        1000,
        1000,
    ]
    assert backoff_ms(failed(A, attempts=3), 1.0) == 200


@given(
    kinds=st.lists(st.sampled_from(list(FaultKind)), min_size=40, max_size=40),
    targets=st.integers(1, 4),
    max_attempts=st.integers(0, 10),
    jitter=st.floats(0, 1),
)
def test_every_turn_of_faults_ends(
    kinds: list[FaultKind], targets: int, max_attempts: int, jitter: float
) -> None:
    options = {f"llm:{n}:m": Option(f"llm:{n}:m", max_attempts=max_attempts) for n in range(targets)}
    total = 0
    for kind in kinds:
        step = decide(Situation(list(options.values()), 10_000, jitter, total))
        if isinstance(step, GiveUp):
            break
        total += 1
        option = options[step.target]
        options[step.target] = dataclasses.replace(option, attempts=option.attempts + 1, last=kind)
    else:
        pytest.fail("the turn went on and on")
    assert total <= 8
    assert all(option.attempts <= max(max_attempts, 1) for option in options.values())
