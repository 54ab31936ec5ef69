"""Recovery's pure parts: counters, decisions, silences, statistics."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.wire import codec
from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.noted_link import NotedLink
from worker.link.api import TargetSpec
from worker.recovery.counters import Count, ErrorCounters
from worker.recovery.decisions import Do, decide
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import RecoveryOptions
from worker.recovery.stats import ErrorStats, SessionReport, SilenceMeter

SERVER, RATE = FaultKind.SERVER, FaultKind.RATE_LIMIT


def test_importing_the_worker_is_light() -> None:
    """An agent of one's own imports it everywhere; livekit comes with what is asked for."""
    code = "import sys, worker; assert 'livekit' not in sys.modules; from worker import setup_error_handling"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_errors_in_a_row_up_to_the_limit() -> None:
    counters = ErrorCounters(2)
    counts = [counters.error(Role.LLM, SERVER, turn) for turn in (1, 2, 3)]
    assert [(c.count, c.exhausted) for c in counts] == [(1, False), (2, False), (3, True)]


def test_kinds_of_a_role_count_together_and_roles_apart() -> None:
    counters = ErrorCounters(1)
    assert not counters.error(Role.LLM, SERVER, 1).exhausted
    assert not counters.error(Role.TTS, SERVER, 1).exhausted
    assert counters.error(Role.LLM, RATE, 2).exhausted


def test_a_kind_with_a_limit_of_its_own_counts_apart() -> None:
    counters = ErrorCounters({"llm": 0, "rate_limit": 2, "tts.cut": 5})
    assert [counters.error(Role.LLM, RATE, turn).exhausted for turn in (1, 2, 3)] == [False, False, True]
    assert counters.error(Role.LLM, SERVER, 4).exhausted
    assert counters.limit(Role.TTS, FaultKind.CUT) == 5
    assert counters.limit(Role.TTS) == 3


def test_a_turn_counts_once_however_many_errors_it_brings() -> None:
    counters = ErrorCounters(1)
    counts = [counters.error(Role.STT, SERVER, 7) for _ in range(9)]
    assert [(c.count, c.new) for c in counts] == [(1, True)] + [(1, False)] * 8
    assert counters.total[Role.STT] == 9


def test_success_resets_its_role_only() -> None:
    counters = ErrorCounters({"rate_limit": 1})
    counters.error(Role.LLM, SERVER, 1)
    counters.error(Role.LLM, RATE, 2)
    counters.error(Role.STT, SERVER, 2)
    assert counters.success(Role.LLM)
    assert not counters.success(Role.LLM)
    assert (counters.in_a_row(Role.LLM), counters.in_a_row(Role.STT)) == (0, 1)
    assert counters.total[Role.LLM] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        -1, {"llm": -1}, {"lmm": 1}, {"llm.rate": 1}, {"llm": True}, {"llm.tts": 1}, {"rate_limit.llm": 1},
        {"llm.rate_limit.server": 1}, {"llm": "5"}, {"llm": 2.5}, {"llm": None}, 2.5, {("llm", "rate_limit"): 1},
    ],
)  # fmt: skip
def test_limits_that_cannot_be_meant(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"must be 0 or more|must be a whole number|neither a role"):
        ErrorCounters(wrong)


@given(st.lists(st.sampled_from([*Role]) | st.none(), max_size=40), st.integers(0, 5))
def test_never_more_apologies_in_a_row_than_the_limit(steps: list[Role | None], limit: int) -> None:
    counters, row = ErrorCounters(limit), dict.fromkeys(Role, 0)
    for turn, role in enumerate(steps):
        if role is None:
            for each in Role:
                counters.success(each)
                row[each] = 0
            continue
        row[role] += 1
        assert counters.error(role, SERVER, turn).exhausted == (row[role] > limit)


@pytest.mark.parametrize(
    ("role", "count", "voice_dead", "do", "dead"),
    [
        (Role.LLM, Count(1, 3), False, Do.APOLOGISE, False),
        (Role.LLM, Count(3, 3), False, Do.APOLOGISE, False),
        (Role.LLM, Count(4, 3), False, Do.FINAL, False),
        (Role.LLM, Count(1, 3), True, Do.APOLOGISE, True),
        (Role.TTS, Count(1, 3), False, Do.APOLOGISE, True),
        (Role.TTS, Count(4, 3), False, Do.FINAL, True),
    ],
)
def test_decisions(role: Role, count: Count, voice_dead: bool, do: Do, dead: bool) -> None:
    decision = decide(role, SERVER, count, voice_dead=voice_dead)
    assert (decision.do, decision.voice_dead) == (do, dead)


def test_messages_that_fit() -> None:
    assert decide(Role.LLM, RATE, Count(1, 3), voice_dead=False).message_keys == ("llm.rate_limit", "llm")
    assert decide(Role.LLM, RATE, Count(4, 3), voice_dead=False).message_keys == ("final",)


def test_the_longest_silence_is_from_a_turns_end_to_a_sound() -> None:
    meter = SilenceMeter()
    meter.heard(1.0)
    meter.turn_ended(10.0)
    meter.heard(11.5)
    meter.heard(60.0)
    assert (meter.longest_s, meter.waiting_since) == (1.5, None)
    meter.turn_ended(70.0)
    meter.turn_ended(75.0)
    assert (meter.longest_s, meter.waiting_since) == (5.0, 75.0)


def test_stats_read_as_they_always_did_and_hold_more() -> None:
    stats = ErrorStats({"llm": 2, "tts": 0, "stt": 1}, {"failovers": 4})
    assert json.dumps(stats) == '{"llm": 2, "tts": 0, "stt": 1}'
    assert sum(stats.values()) == 3
    assert stats["failovers"] == 4
    with pytest.raises(KeyError):
        _ = stats["nonsense"]


def test_a_report_goes_over_the_wire() -> None:
    report = SessionReport(
        session="s", started_at_ms=1, ended_at_ms=2, turns=3, session_errors={"llm": 1, "tts": 0, "stt": 0},
        faults={"llm": {"server": 2}}, failovers=1, apologies=1, final_messages=0, longest_silence_s=1.25,
        outcome="recovered", targets={"llm": "llm:groq:m"},
    )  # fmt: skip
    info = report.info("w")
    assert codec.decode(codec.encode(info), type(info)) == info
    assert (info.errors, info.longest_silence_ms) == ({"llm": {FaultKind.SERVER: 2}}, 1250)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_exhausted": "explode"},
        {"on_exhausted": "transfer"},
        {"on_exhausted": "transfer", "transfer": "tel:+15550100"},
        {"patience_s": -1.0},
        {"patience_s": float("nan")},
    ],
)
def test_options_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"on_exhausted|patience_s"):
        RecoveryOptions(**wrong)  # pyright: ignore[reportArgumentType] - wrong on purpose


A, B = "llm:x:a", "llm:x:b"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_hopeless_only_when_every_target_failed_or_is_overdue() -> None:
    clock = Clock()
    link = ObservedLink(NotedLink(), clock=clock)
    first = link.started(A, 2000)
    clock.now += 1.0
    assert not link.hopeless(Role.LLM, [A, B], 100.0, 0.6), "the second was not asked yet"
    assert link.hopeless(Role.LLM, [A], 100.0, 0.6)
    second = link.started(B, 2000)
    assert not link.hopeless(Role.LLM, [A, B], 100.0, 0.6), "the second has only just begun"
    clock.now += 0.7
    assert link.hopeless(Role.LLM, [A, B], 100.0, 0.6)
    link.failed(first, SERVER)
    assert link.hopeless(Role.LLM, [A, B], 100.0, 0.6)
    assert not link.hopeless(Role.TTS, [A, B], 100.0, 0.6)
    link.first_output(second, 700)
    assert not link.hopeless(Role.LLM, [A, B], 100.0, 0.6), "it answers"


def test_what_was_bad_in_an_earlier_turn_is_no_hope_until_it_answers() -> None:
    clock = Clock()
    link = ObservedLink(NotedLink(), clock=clock)
    link.failed(link.started(A, 2000), SERVER)
    link.started(B, 2000)
    link.gave_up_on(Role.LLM)
    clock.now += 5.0
    turn = clock.now
    clock.now += 0.1
    again = link.started(A, 2000)
    assert link.hopeless(Role.LLM, [A, B], turn, 0.6)
    link.first_output(again, 50)
    link.succeeded(again)
    link.started(A, 2000)
    assert not link.hopeless(Role.LLM, [A, B], turn, 0.6), "it has answered since"
    clock.now += 60.0
    link.started(B, 2000)
    assert not link.hopeless(Role.LLM, [A, B], clock.now, 0.6), "that was long ago"


def test_attempts_before_the_link_is_there_are_noted_and_never_sent() -> None:
    inner, link = NotedLink(), ObservedLink()
    early = link.started(A, 2000)
    link.hold([TargetSpec(A, 0)])
    link.attach(inner)
    link.failed(early, SERVER)
    late = link.started(A, 2000)
    link.succeeded(late)
    assert inner.ends() == [(A, "ok")]
    assert [spec.id for spec in inner.held] == [A]
    assert link.by_kind == {Role.LLM: {SERVER: 1}}
    assert link.successes[Role.LLM] == 1
