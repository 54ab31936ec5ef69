"""Judging words, and summing a call up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.simulator.callers.records import Summary, Turn, judge, percentile

SAID = ["Amber", "bridge", "copper", "dolphin."]


def turn(number: int, dead_air_s: float | None) -> Turn:
    return Turn(
        caller="ada",
        turn=number,
        said="Why?",
        speech_end_at=0,
        dead_air_s=dead_air_s,
        silent=dead_air_s is None,
        heard=[] if dead_air_s is None else SAID,
        heard_s=[],
        answer_s=1.0,
        gap_s=0.25 * number,
    )


def test_words_are_lost_twice_or_strange() -> None:
    assert judge(SAID, SAID) == judge([], [])
    assert judge(SAID, ["Amber", "copper", "dolphin."]).lost == ["bridge"]
    assert judge(SAID, ["Amber", "bridge", "bridge", "copper", "dolphin."]).twice == ["bridge"]
    assert judge(SAID, ["Sorry.", *SAID]).other == ["Sorry."]
    assert judge(SAID, ["Amber", "bridge", "Sorry."]).lost == ["copper", "dolphin."]


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcdxy")))
def test_every_word_is_accounted_for(expected: list[str], heard: list[str]) -> None:
    judged = judge(expected, heard)
    assert len(expected) - len(judged.lost) == len(heard) - len(judged.twice) - len(judged.other)


def test_a_summary() -> None:
    summary = Summary.of("ada", [turn(1, 0.5), turn(2, None), turn(3, 0.7)])
    assert (summary.turns, summary.silent, summary.words_heard) == (3, 1, 8)
    assert (summary.dead_air_p50_s, summary.dead_air_p95_s, summary.dead_air_max_s) == (0.5, 0.7, 0.7)
    assert summary.longest_gap_s == 0.75
    assert Summary.of("ada", []).dead_air_p50_s is None


def test_percentiles_are_numbers_that_were_seen() -> None:
    assert percentile(range(1, 101), 0.95) == 95
    assert percentile([3.0], 0.95) == 3.0
