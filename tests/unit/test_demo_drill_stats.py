"""The drill's arithmetic, on turns small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.demo.drill_stats import Outage, Verdicts, quantile, summarise
from worker.drill.records import compare

OUTAGE = Outage(10_000, 40_000)


def turn(at_ms: int, first_s: float | None, **more: Any) -> dict[str, Any]:
    base = {"session": "a", "at_ms": at_ms, "first_s": first_s, "total_s": 9.0, "expected": 10, "got": 10}
    return base | {"twice": 0, "apologised": False, "closed": False} | more


def row(*turns: dict[str, Any]) -> dict[str, Any]:
    return summarise("plain", turns, OUTAGE, 7, Verdicts(0.9, None))


def test_extra_wait_is_against_the_variants_own_healthy_median() -> None:
    found = row(turn(0, 0.1), turn(1, 0.3), turn(2, 0.2), turn(11_000, 1.2))
    assert found["healthy_p50_s"] == 0.2
    assert found["extra_wait_s"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}


def test_a_silent_turn_waits_until_it_is_over() -> None:
    found = row(turn(0, 0.5), turn(10_000, None, got=0))
    assert found["silent"] == 1
    assert found["cut"] == 0
    assert found["extra_wait_s"]["p50"] == 8.5


def test_turns_count_when_they_begin_in_the_outage() -> None:
    found = row(turn(9_999, 0.1), turn(10_000, 0.1), turn(39_999, 0.1), turn(40_000, None))
    assert found["turns"] == 2
    assert found["silent"] == 0


def test_an_answer_that_stops_is_cut_and_one_that_repeats_is_not() -> None:
    found = row(turn(11_000, 0.1, got=4), turn(12_000, 0.1, twice=3))
    assert (found["cut"], found["repeated"]) == (1, 1)


def test_a_session_that_closes_counts_once() -> None:
    found = row(
        turn(11_000, None, closed=True), turn(12_000, None, closed=True), turn(12_000, 0.1, session="b")
    )
    assert found["closed"] == 1


def test_no_turns_at_all_says_none_and_not_zero() -> None:
    found = row()
    assert found["extra_wait_s"] == {"p50": None, "p95": None, "p99": None}
    assert (found["verdict_s"], found["recovery_s"], found["dead_requests"]) == (0.9, None, 7)


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_quantiles_lie_within_the_values(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found is not None
    assert min(values) <= found <= max(values) + 1e-9


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("Amber brook cedar.", (3, 0, False)),
        ("Amber brook", (2, 0, False)),
        ("Amber brook Amber brook cedar.", (3, 2, False)),
        ("Amber cedar.", (1, 0, False)),
        ("Sorry, one moment please.", (0, 0, True)),
        ("", (0, 0, False)),
    ],
)
def test_an_answer_is_compared_word_by_word(heard: str, expected: tuple[int, int, bool]) -> None:
    assert compare(["Amber", "brook", "cedar."], heard.split()) == expected
