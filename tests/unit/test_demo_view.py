"""What a demo says in words."""

from __future__ import annotations

from supervisor.demo.view import since, summary_of


def test_the_end_in_one_line() -> None:
    callers = {"turns": 64, "silent": 1, "dead_air_s": {"p50": 0.82, "p95": 0.9, "max": 0.92}}
    assert summary_of({"callers": callers, "verdicts": ["one", "two"]}) == (
        "63 of 64 turns answered, 1 silent; wait for an answer: median 0.82 s, longest 0.92 s; 2 verdicts"
    )


def test_the_end_of_a_demo_without_a_turn() -> None:
    callers = {"turns": 0, "silent": 0, "dead_air_s": {"p50": None, "p95": None, "max": None}}
    assert summary_of({"callers": callers, "verdicts": []}) == "0 of 0 turns answered, 0 silent; 0 verdicts"


def test_each_verdict_is_said_once() -> None:
    assert since(["a", "b"], "") == ["a", "b"]
    assert since(["a", "b", "c"], "b") == ["c"]
    assert since(["a"], "a") == []
    assert since(["x", "y"], "forgotten") == ["x", "y"]
