"""Windows, statistics, transitions and policy: the engine's small parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.policy import PolicyBook, PolicyError, check_scope, check_values, described
from supervisor.core.stats import jittered, quantile_ms, wilson_lower
from supervisor.core.transitions import CONDEMNED, TABLE, IllegalTransition, Trigger, mermaid, next_state
from supervisor.core.windows import Totals, Window
from supervisor.wire.vocabulary import HISTOGRAM_BOUNDS_MS, HISTOGRAM_BUCKETS, Role, State


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 5)), max_size=60), st.integers(0, 12_000))
def test_a_window_holds_what_its_slots_cover(steps: list[tuple[int, int]], pause: int) -> None:
    totals, now = Totals(), 1_000_000
    window = Window(20, 500, now)
    added: list[tuple[int, int]] = []
    for wait, n in steps:
        now += wait
        window.roll(now, totals)
        totals.ok += n
        added.append((now // 500, n))
    now += pause
    window.roll(now, totals)
    expected = sum(n for slot, n in added if slot > now // 500 - 20)
    assert window.sums(totals).ok == expected


def test_a_window_forgets_what_was_before_a_clean_start() -> None:
    totals = Totals()
    window = Window(20, 500, 0)
    totals.faults = totals.started = 9
    clean = totals.now()
    totals.started, totals.ok = 12, 3
    assert window.sums(totals).faults == 9
    assert window.sums(totals, clean) == (3, 3, 0, 0, 0)


def test_time_that_goes_back_changes_no_window() -> None:
    totals, window = Totals(), Window(12, 5_000, 100_000)
    totals.ok = 4
    window.roll(90_000, totals)
    assert window.sums(totals).ok == 4


@pytest.mark.parametrize(
    ("faults", "finished", "z", "bound"),
    # Worked out with the interval's own equation: the bound p solves |f/n - p| = z sqrt(p(1-p)/n).
    [
        (0, 10, 1.96, 0.0),
        (3, 3, 1.96, 0.4385),
        (5, 5, 1.96, 0.5655),
        (20, 100, 1.96, 0.1334),
        (1, 0, 1.96, 0.0),
    ],
)
def test_wilson_bounds(faults: int, finished: int, z: float, bound: float) -> None:
    assert wilson_lower(faults, finished, z) == pytest.approx(bound, abs=2e-4)


@given(st.integers(1, 500), st.data())
def test_the_wilson_bound_solves_its_equation(finished: int, data: st.DataObject) -> None:
    faults = data.draw(st.integers(1, finished))
    p = wilson_lower(faults, finished)
    assert 0.0 <= p <= faults / finished
    assert abs(faults / finished - p) == pytest.approx(1.96 * (p * (1 - p) / finished) ** 0.5, abs=1e-6)


def test_quantiles_are_within_their_bucket() -> None:
    histogram = [0] * HISTOGRAM_BUCKETS
    assert quantile_ms(histogram, 0.5) == 0
    histogram[5] = 90  # over 200 up to 280 ms
    histogram[8] = 10  # over 560 up to 800 ms
    assert 200 < quantile_ms(histogram, 0.5) <= 280
    assert 560 < quantile_ms(histogram, 0.95) <= 800
    assert quantile_ms([0] * (HISTOGRAM_BUCKETS - 1) + [1], 0.5) == HISTOGRAM_BOUNDS_MS[-1]


def test_jitter_is_bounded_spread_and_the_same_every_time() -> None:
    seen = [jittered(5_000, 0.2, "llm:a:b", n) for n in range(200)]
    assert seen == [jittered(5_000, 0.2, "llm:a:b", n) for n in range(200)]
    assert all(4_000 <= ms <= 6_000 for ms in seen)
    assert min(seen) < 4_300
    assert max(seen) > 5_700


def test_illegal_moves_raise() -> None:
    for state in State:
        for trigger in Trigger:
            if (state, trigger) in TABLE:
                assert next_state(state, trigger) is TABLE[state, trigger]
            else:
                with pytest.raises(IllegalTransition, match=trigger.value):
                    next_state(state, trigger)


def test_only_probing_leads_out_of_condemnation_and_every_state_can_return() -> None:
    out = {
        (before, after)
        for (before, _), after in TABLE.items()
        if before in CONDEMNED and after not in CONDEMNED
    }
    assert out == {(State.PROBING, State.RAMPING)}
    reach = {State.HEALTHY}
    while True:
        more = {before for (before, _), after in TABLE.items() if after in reach} | reach
        if more == reach:
            break
        reach = more
    assert reach == set(State)


def test_the_diagram_names_every_move() -> None:
    assert sum(" --> " in line and ":" in line for line in mermaid().splitlines()) == len(TABLE)


def test_policies_merge_from_wide_to_narrow() -> None:
    book = PolicyBook()
    assert book.of("tts:a:b", Role.TTS).new_calls_only
    assert not book.of("llm:a:b", Role.LLM).new_calls_only
    book.put("fleet", {"run_base": 7, "ramp_1": 0.2})
    book.put("role:llm", {"run_base": 8})
    book.put("target:llm:a:b", {"run_base": 9})
    assert [book.of(t, Role(t[:3])).run_base for t in ("tts:a:b", "llm:x:y", "llm:a:b")] == [7, 8, 9]
    assert book.of("llm:a:b", Role.LLM).ramp_1 == 0.2
    book.put("target:llm:a:b", {})
    assert book.of("llm:a:b", Role.LLM).run_base == 8


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"run_bass": 3}, "run_bass"),
        ({"run_base": 0}, "run_base"),
        ({"rate_bound": 2.0}, "rate_bound"),
        ({"ramp_1": 0.5, "ramp_2": 0.3}, "ramp_1 must not be above ramp_2"),
        ({"clear_bound": 0.4}, "clear_bound must not be above degraded_bound"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_name(values: dict[str, float], says: str) -> None:
    book = PolicyBook()
    with pytest.raises(PolicyError, match=says):
        book.put("fleet", values)
    assert book.scopes == {}


def test_a_narrow_scope_that_contradicts_the_wide_one_is_left_out() -> None:
    book = PolicyBook()
    book.put("target:llm:a:b", {"ramp_2": 0.2})
    book.put("fleet", {"ramp_1": 0.22, "run_base": 6})
    policy = book.of("llm:a:b", Role.LLM)
    assert (policy.ramp_1, policy.ramp_2, policy.run_base) == (0.22, 0.25, 6)


def test_scopes_are_checked() -> None:
    for scope in ("fleet", "role:stt", "target:llm:a:b/c:d"):
        assert check_scope(scope) == scope
    for scope in ("", "role:video", "target:nonsense", "llm:a:b"):
        with pytest.raises(PolicyError):
            check_scope(scope)


def test_every_number_is_described_and_its_default_allowed() -> None:
    for rule in described():
        assert rule.text
        check_values({rule.name: rule.default})
