"""The audio drill's arithmetic and its page, on calls small enough to follow by hand."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console

from supervisor.demo.audio_drill import FAULTS, ROLES, cases, timelines
from supervisor.demo.audio_stats import healthy_turns, summarise, verdict_on
from supervisor.demo.cli import audio_table
from supervisor.demo.drill_stats import Outage
from supervisor.demo.report import render_report

OUTAGE = Outage(100_000, 120_000)


def turn(at_ms: int = 105_000, **more: Any) -> dict[str, Any]:
    said = "What are your opening hours today please?"
    base = {"event": "turn", "caller": "c1", "turn": 2, "speech_end_at": at_ms, "speech_s": 2.0, "said": said}
    heard = {"dead_air_s": 0.8, "silent": False, "answer_s": 3.0}
    counts = heard | {"expected": 12, "lost": 0, "twice": 0, "other": 0, "stt_lost": 0}
    return base | counts | more


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({}, "answered"),
        ({"lost": 5}, "answered"),
        ({"lost": 12, "other": 8}, "apology"),
        ({"lost": 12}, "apology"),  # a recording: sound, but no word of it is decoded
        ({"lost": 12, "other": 14, "stt_lost": 3}, "misheard"),
        ({"lost": 11, "other": 6, "stt_lost": 7}, "apology"),  # nothing was understood; one word by chance
        ({"silent": True, "dead_air_s": None, "lost": 12}, "silent"),
    ],
)
def test_what_a_turn_was_for_its_caller(more: dict[str, Any], what: str) -> None:
    assert verdict_on(turn(**more)) == what


def test_a_row_counts_the_turns_of_the_outage_alone() -> None:
    lines = [
        turn(99_999, lost=3),
        turn(dead_air_s=1.0, lost=1, twice=2),
        turn(dead_air_s=2.0, lost=12, other=6),
        turn(silent=True, dead_air_s=None, lost=12),
        turn(120_000, twice=5),
        {"event": "closed", "caller": "c1", "at": 118_000, "error": True},
        {"event": "closed", "caller": "c2", "at": 118_000, "error": False},
        {"event": "state", "caller": "c1", "at": 118_000, "state": "waiting"},
    ]
    row = summarise("guarded", "llm", "cut", lines, [OUTAGE])
    counted = {
        k: row[k] for k in ("turns", "answered", "apologies", "silent", "words_lost", "words_twice", "closed")
    }
    assert counted == {
        "turns": 3, "answered": 1, "apologies": 1, "silent": 1, "words_lost": 1, "words_twice": 2, "closed": 1,
    }  # fmt: skip
    assert row["dead_air_s"] == {"p50": 1.5, "p95": 1.95, "max": 2.0}


def test_a_recogniser_that_fails_while_the_last_words_are_spoken_is_counted_apart() -> None:
    lines = [turn(101_199, dead_air_s=2.4), turn(101_200, dead_air_s=1.0), turn(dead_air_s=1.0, caller="c2")]
    row = summarise("guarded", "stt", "hang", lines, [OUTAGE])
    assert row["fault_late"] == {"turns": 1, "p50": 2.4, "p95": 2.4, "max": 2.4}
    assert row["dead_air_s"]["max"] == 1.0
    assert (row["turns"], row["calls"]) == (3, 2)
    # Apart, but in sight: on the page, and in a terminal of 120 columns.
    assert "<td>2.40/2.40 s, of 1</td>" in render_report([row], {}, [])
    terminal = Console(width=120, file=io.StringIO(), color_system=None)
    rows = [
        {
            **row,
            "turns": 640,
            "answered": 640,
            "words_lost": 1234,
            "variant": "upstream",
            "fault": "dead-hang",
        }
    ]
    terminal.print(audio_table(rows))
    # Nothing is cut off.
    lines_shown = cast("io.StringIO", terminal.file).getvalue().splitlines()
    assert max(map(len, lines_shown)) <= 120
    data = next(line for line in lines_shown if "dead-hang" in line)
    assert "2.40/2.40" in data
    assert "upstream" in data
    # In a narrow one cells are folded, not shortened.
    narrow = Console(width=80, file=io.StringIO(), color_system=None)
    narrow.print(audio_table(rows))
    assert "…" not in cast("io.StringIO", narrow.file).getvalue()
    other = summarise("guarded", "llm", "hang", lines, [OUTAGE])
    assert (other["fault_late"]["turns"], other["dead_air_s"]["max"]) == (0, 2.4)


def test_healthy_turns_are_over_before_a_fault_begins_and_not_the_first_of_a_call() -> None:
    kept = turn(90_000)
    lines = [kept, turn(95_000), turn(90_000, turn=1), turn(125_000), turn(160_000)]
    assert healthy_turns(lines, [OUTAGE]) == [kept, lines[-1]]


def test_no_role_gets_a_fault_it_cannot_have() -> None:
    chosen = cases(ROLES, tuple(FAULTS))
    assert len(chosen) == len(ROLES) * len(FAULTS) - 2
    assert ("llm", "silent") not in chosen
    assert ("stt", "empty") not in chosen


def test_the_report_holds_every_case_and_escapes_what_it_shows() -> None:
    lines = [turn(caller="<script>alert(1)</script>"), turn(silent=True, dead_air_s=None, lost=12)]
    row = summarise("guarded", "llm", "cut", lines, [OUTAGE])
    again = Outage(200_000, 220_000)
    drawn = timelines("guarded", "llm", "cut", [*lines, turn(205_000)], [OUTAGE, again])
    assert [len(timeline["turns"]) for timeline in drawn] == [2, 1]
    page = render_report([row], {"guarded": {"p50": 0.8, "p95": 0.9, "max": None}}, drawn)
    assert "<script" not in page
    assert page.count("<svg") == 2
    assert "guarded, round 2: llm cut, 1 calls" in page
    assert "llm: cut" in page
    assert [f"{second} s</text>" in page for second in (-10, 0, 20, 30, 35)] == [
        True,
        True,
        True,
        True,
        False,
    ]
    assert 'class="bad">1<' in page


def test_the_reports_calls_are_in_the_order_of_their_numbers() -> None:
    lines = [turn(caller=f"call-{n}") for n in (10, 2, 1)]
    row = summarise("guarded", "llm", "cut", lines, [OUTAGE])
    page = render_report([row], {}, timelines("guarded", "llm", "cut", lines, [OUTAGE]))
    assert page.index(">call-1<") < page.index(">call-2<") < page.index(">call-10<")
    assert page.count('<g class="call">') == 3
