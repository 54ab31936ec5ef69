"""Who may be asked, and in which order."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.admission import Plan, Router, admitted, sticky
from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import OverrideState, State
from worker.link.api import Rule, TargetSpec

A, B, C = "llm:groq:a", "llm:openai:b", "llm:groq:c"
STICKY_SESSION_A = 0.08773567230199053
HELD = [TargetSpec(A, 0, "key-a"), TargetSpec(B, 1, "key-b"), TargetSpec(C, 2, "key-a")]
NOW = 1_000.0


def rule(target: str, state: State = State.HEALTHY, *, stale: bool = False, **over: Any) -> Rule:
    mono = {k: over.pop(k) for k in ("hold_off_until_mono", "local_open_until_mono") if k in over}
    snapshot = Snapshot(target=target, revision=1, epoch=1, state=state, **over)
    return Rule(snapshot=snapshot, stale=stale, **mono)


def rules(*given_rules: Rule) -> dict[str, Rule]:
    known = {r.snapshot.target: r for r in given_rules}
    for rank, spec in enumerate(HELD):
        known.setdefault(spec.id, rule(spec.id, rank=rank))
    return known


def route(*given_rules: Rule, session: str = "s1", started_at_ms: int = 10, now: float = NOW):
    return Plan(rules(*given_rules), HELD).route(session, started_at_ms, now)


def session_in(target: str, share: float) -> str:
    return next(s for n in range(10_000) if sticky(s := f"s{n}", target) < share)


def session_out(target: str, share: float) -> str:
    return next(s for n in range(10_000) if sticky(s := f"s{n}", target) >= share)


def test_admission_given_all_healthy_then_rank_order():
    assert route().targets == (A, B, C)
    assert route(rule(A, rank=5)).targets == (B, C, A)
    assert not route().panic


def test_admission_given_a_condemned_target_then_it_is_left_out():
    assert route(rule(A, State.UNHEALTHY, admit=0.0, rank=2)).targets == (B, C)


def test_admission_given_no_rules_at_all_then_the_users_own_order():
    assert Plan({}, list(reversed(HELD))).route("s", 0, NOW).targets == (A, B, C)


def test_admission_given_a_stale_verdict_then_defaults_in_the_users_own_order():
    stale = rule(A, State.UNHEALTHY, stale=True, admit=0.0, rank=9, condemned_keys=("key-a",))
    assert route(stale).targets == (A, B, C)


def test_admission_given_a_stale_rule_then_the_local_breaker_still_holds():
    assert route(rule(A, stale=True, local_open_until_mono=NOW + 1)).targets == (B, C)


def test_admission_given_an_open_local_breaker_then_others_until_its_time_is_over():
    opened = rule(A, local_open_until_mono=NOW + 5)
    assert route(opened).targets == (B, C)
    assert route(opened, now=NOW + 5).targets == (A, B, C)


def test_admission_given_a_hold_off_then_nothing_before_it_is_over():
    held = rule(A, State.LIMITED, hold_off_until_mono=NOW + 5)
    assert route(held).targets == (B, C)
    assert route(held, now=NOW + 5).targets == (A, B, C)


def test_admission_given_a_condemned_key_then_only_its_holders_are_shut_out():
    shut = [rule(t, condemned_keys=("key-a",)) for t in (A, B, C)]
    assert route(*shut).targets == (B,)
    assert not route(*shut).panic


def test_admission_given_a_ramp_then_its_share_of_sessions_uses_it_in_the_users_own_order():
    ramp = rule(A, State.RAMPING, admit=0.25, rank=2)
    others = (rule(B, rank=0), rule(C, rank=1))
    assert route(ramp, *others, session=session_in(A, 0.25)).targets == (A, B, C)
    assert route(ramp, *others, session=session_out(A, 0.25)).targets == (B, C)


def test_admission_given_a_degraded_target_then_it_is_the_last_resort_of_those_outside_its_share():
    weak = rule(A, State.DEGRADED, admit=0.1, rank=2)
    others = (rule(B, rank=0), rule(C, rank=1))
    assert route(weak, *others, session=session_in(A, 0.1)).targets == (A, B, C)
    assert route(weak, *others, session=session_out(A, 0.1)).targets == (B, C, A)


def test_admission_given_only_degraded_is_left_then_that_is_no_panic():
    dead = [rule(t, State.UNHEALTHY, admit=0.0) for t in (B, C)]
    found = route(rule(A, State.DEGRADED, admit=0.1), *dead, session=session_out(A, 0.1))
    assert found.targets == (A,)
    assert not found.panic


def test_admission_given_new_sessions_only_then_a_call_that_began_before_keeps_away():
    ramp = rule(A, State.RAMPING, admit=1.0, new_sessions_only=True, since_at_ms=1_000)
    assert route(ramp, started_at_ms=999).targets == (B, C)
    assert A in route(ramp, started_at_ms=1_000).targets


def test_admission_given_nothing_admitted_then_panic_in_order_of_evidence():
    found = route(
        rule(A, State.UNHEALTHY, admit=0.0),
        rule(B, State.LIMITED, hold_off_until_mono=NOW + 9),
        rule(C, State.RAMPING, admit=0.0),
    )
    assert found.panic
    assert found.targets == (C, A, B)


def test_admission_given_panic_then_a_target_an_operator_shut_comes_last():
    shut = rule(A, State.HEALTHY, admit=0.0, override=OverrideState.FORCED_UNHEALTHY)
    dead = [rule(t, State.UNHEALTHY, admit=0.0) for t in (B, C)]
    assert route(shut, *dead).targets == (B, C, A)


def test_admission_given_panic_then_condemned_keys_stay_out():
    found = route(
        rule(A, State.UNHEALTHY, admit=0.0, condemned_keys=("key-a",)),
        rule(B, State.UNHEALTHY, admit=0.0),
        rule(C, State.UNHEALTHY, admit=0.0, condemned_keys=("key-a",)),
    )
    assert found.panic
    assert found.targets == (B,)


def test_admission_given_every_key_is_condemned_then_nothing_is_tried():
    found = route(
        *(rule(t, State.UNHEALTHY, admit=0.0, condemned_keys=("key-a", "key-b")) for t in (A, B, C))
    )
    assert found.targets == ()
    assert found.shut


def test_admission_given_every_local_breaker_is_open_then_all_are_tried():
    found = route(*(rule(t, stale=True, local_open_until_mono=NOW + 1) for t in (A, B, C)))
    assert found.panic
    assert found.targets == (A, B, C)


def test_admission_given_the_same_rules_then_the_router_keeps_its_plan_and_makes_a_new_one_for_others():
    router = Router(HELD)
    first = rules()
    assert router.route(first, "s", 0, NOW) is router.route(first, "s", 0, NOW)
    assert router.route(rules(rule(A, State.UNHEALTHY, admit=0.0)), "s", 0, NOW).targets == (B, C)


def test_admission_share_is_about_as_large_as_it_says():
    inside = sum(sticky(f"session-{n}", A) < 0.25 for n in range(4_000))
    assert 850 < inside < 1_150


def test_admission_share_of_two_targets_is_not_the_same_sessions():
    both = sum(sticky(f"x{n}", A) < 0.5 and sticky(f"x{n}", B) < 0.5 for n in range(4_000))
    assert 850 < both < 1_150


def test_admission_place_is_the_same_in_every_process_and_release():
    # The value itself is part of the contract: another one would move every session at an upgrade.
    assert sticky("session", A) == pytest.approx(STICKY_SESSION_A, abs=1e-15)


_states = st.sampled_from(list(State))
_shares = st.sampled_from([0.0, 0.1, 0.5, 1.0])


@st.composite
def _any_rule(draw: st.DrawFn, target: str) -> Rule:
    return rule(
        target,
        draw(_states),
        stale=draw(st.booleans()),
        admit=draw(_shares),
        rank=draw(st.integers(0, 4)),
        condemned_keys=draw(st.sampled_from([(), ("key-a",), ("key-b",), ("key-a", "key-b"), ("other",)])),
        new_sessions_only=draw(st.booleans()),
        since_at_ms=draw(st.integers(0, 20)),
        override=draw(st.sampled_from([None, *OverrideState])),
        hold_off_until_mono=draw(st.sampled_from([0.0, NOW - 1, NOW + 1])),
        local_open_until_mono=draw(st.sampled_from([0.0, NOW - 1, NOW + 1])),
    )


_any_rules = st.tuples(*(_any_rule(t) for t in (A, B, C)))
_sessions = st.text(max_size=20)


@settings(deadline=None)  # a busy machine is no failure
@given(_any_rules, _sessions, st.integers(0, 20))
def test_admission_invariants(given_rules: tuple[Rule, ...], session: str, started: int):
    by_target = {r.snapshot.target: r for r in given_rules}
    found = Plan(by_target, HELD).route(session, started, NOW)
    assert len(set(found.targets)) == len(found.targets)
    shut = {
        spec.id
        for spec in HELD
        if not by_target[spec.id].stale and spec.key_fp in by_target[spec.id].snapshot.condemned_keys
    }
    # Never silence while something may still be tried, and never a condemned key.
    assert not shut & set(found.targets)
    assert bool(found.targets) == bool({spec.id for spec in HELD} - shut)
    ok = {
        spec.id
        for spec in HELD
        if admitted(by_target[spec.id], spec.key_fp, sticky(session, spec.id), started, NOW)
    }
    if found.panic:
        assert not ok
        assert set(found.targets) == {spec.id for spec in HELD} - shut
    else:
        assert ok <= set(found.targets)
        rest = set(found.targets) - ok
        assert all(by_target[t].snapshot.state is State.DEGRADED for t in rest)


@settings(deadline=None)  # a busy machine is no failure
@given(_any_rules, _sessions, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_admission_growing_share_never_loses_a_session(
    given_rules: tuple[Rule, ...], session: str, one: float, other: float
):
    low, high = sorted((one, other))
    target = given_rules[0].snapshot.target

    def inside(share: float) -> bool:
        snapshot = Snapshot(target=target, revision=1, epoch=1, state=State.RAMPING, admit=share)
        return admitted(Rule(snapshot), "k", sticky(session, target), 0, NOW)

    assert inside(high) or not inside(low)


@settings(deadline=None)  # a busy machine is no failure
@given(_any_rules, _sessions)
def test_admission_local_breaker_only_narrows(given_rules: tuple[Rule, ...], session: str):
    closed = [dataclasses.replace(r, local_open_until_mono=0.0) for r in given_rules]
    for opened, shut in zip(given_rules, closed, strict=True):
        place = sticky(session, opened.snapshot.target)
        assert not admitted(opened, "k", place, 5, NOW) or admitted(shut, "k", place, 5, NOW)
