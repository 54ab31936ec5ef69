"""The container's knowledge: counts, time to live, rules. Time is set by the tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.admission import Plan
from supervisor.wire.codec import decode_worker, encode
from supervisor.wire.messages import MAX_TARGETS_PER_WORKER, Report, Snapshot, Wake
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.link_fleet import SPECS, A, B, V
from tests.support.link_world import USE, World
from worker.link.api import Rules, TargetSpec
from worker.link.defaults import default_snapshot
from worker.link.ledger import Flight, TargetEntry, flight_key
from worker.link.strategy import Applied


def test_core_counts_every_outcome_once():
    w = World()
    first = w.start()
    w.core.first_output(first, 120)
    w.core.first_output(first, 130)
    w.core.succeeded(first, USE)
    w.core.succeeded(first, USE)
    w.fail(kind=FaultKind.RATE_LIMIT)
    w.core.abandoned(w.start())
    w.start()
    counts = w.counts()
    assert (counts.started, counts.ok, counts.abandoned, counts.in_flight) == (4, 1, 1, 1)
    assert counts.faults == {FaultKind.RATE_LIMIT: 1}
    assert counts.first_outputs == 1
    assert counts.histogram[3] == 1
    assert sum(counts.histogram) == 1
    assert (counts.tokens, counts.characters, counts.audio_ms) == (3, 4, 5)
    assert counts.key_fp == "key-a"


def test_core_trailing_faults_are_the_run_of_health_faults_at_the_end():
    w = World()
    w.fail(times=2)
    w.succeed()
    w.fail(times=3)
    w.fail(kind=FaultKind.LOCAL)
    w.fail(kind=FaultKind.RATE_LIMIT)
    assert w.counts().trailing_faults == 3
    w.succeed()
    assert w.counts().trailing_faults == 0


def test_core_report_is_cumulative_and_numbered_and_the_targets_stand_in_the_users_order():
    w = World(specs=[TargetSpec(B, 1), TargetSpec(V, 0), TargetSpec(A, 0)])
    w.fail()
    one = w.core.report(3)
    w.fail()
    two = w.core.report(3, draining=True)
    assert [c.target for c in one.targets] == [A, B, V]
    assert (one.seq, two.seq) == (1, 2)
    assert (one.targets[0].started, two.targets[0].started) == (1, 2)
    assert (one.sessions, one.draining, two.draining) == (3, False, True)
    assert decode_worker(encode(two)) == two


def test_core_an_attempt_becomes_overdue_by_the_snapshots_number_and_output_takes_it_back():
    w = World()
    w.publish(state=State.HEALTHY, overdue_ms=300)
    attempt = w.start()
    w.now += 0.29
    w.core.tick()
    assert w.counts().overdue == 0
    w.now += 0.02
    w.core.tick()
    assert w.counts().overdue == 1
    w.core.tick()
    assert w.counts().overdue == 1
    w.core.first_output(attempt, 310)
    counts = w.counts()
    assert (counts.overdue, counts.over_budget, counts.in_flight) == (0, 1, 1)


@pytest.mark.parametrize("how", ["abandoned", "failed", "succeeded"])
def test_core_an_overdue_attempt_that_ends_is_overdue_no_more(how: str):
    w = World()
    attempt = w.start()
    w.now += 2.0
    w.core.tick()
    assert w.counts().overdue == 1
    if how == "abandoned":
        w.core.abandoned(attempt)
    elif how == "failed":
        w.core.failed(attempt, FaultKind.FIRST_OUTPUT_TIMEOUT)
    else:
        w.core.succeeded(attempt, USE)
    assert (w.counts().overdue, w.counts().in_flight) == (0, 0)


def test_core_attempts_given_up_while_overdue_are_counted_and_open_the_breaker_like_timeouts():
    w = World()
    for _ in range(3):
        attempt = w.start()
        w.core.abandoned(w.start())
        w.now += 2.0
        w.core.tick()
        w.core.abandoned(attempt)
    counts = w.counts()
    assert (counts.abandoned, counts.given_up, counts.overdue) == (6, 3, 0)
    assert counts.faults == {}
    assert w.open()


def test_core_attempts_left_for_another_that_was_asked_beside_them_tell_of_a_hang_before_they_are_overdue():
    w = World()
    snapshot = w.core.rules.by_target[A].snapshot
    assert 0 < snapshot.hedge_ms < snapshot.overdue_ms
    urgent: list[int] = []
    w.core.on_fault = lambda: urgent.append(1)
    for waited_ms in (snapshot.hedge_ms - 50, snapshot.hedge_ms + 50, snapshot.hedge_ms + 50):
        attempt = w.start()
        w.now += waited_ms / 1000
        w.core.abandoned(attempt)
    counts = w.counts()
    assert (counts.abandoned, counts.given_up, counts.overdue, len(urgent)) == (3, 2, 0, 2)
    heard = w.start()
    w.core.first_output(heard, 10)
    w.now += 2.0
    w.core.abandoned(heard)  # a caller who interrupts an answer
    assert w.counts().given_up == 2


def test_core_no_recogniser_is_late_before_it_is_overdue_for_none_is_asked_beside_it():
    target = "stt:cartesia:ink-2"
    snapshot = default_snapshot(target, 0)
    flight = Flight(TargetEntry(target, 0, "", snapshot), 0.0)
    assert snapshot.hedge_ms < 1_000 < snapshot.overdue_ms
    assert not flight.is_late(1.0)
    assert flight.is_late(snapshot.overdue_ms / 1000)


def test_core_a_job_that_dies_with_overdue_attempts_says_nothing_of_their_target():
    w = World()
    w.core.started(flight_key(1, 1), A, w.now)
    w.now += 2.0
    w.core.tick()
    w.core.started(flight_key(1, 2), A, w.now)
    w.now += 1.0  # late, though no beat has come since
    w.core.abandon_job(1)
    counts = w.counts()
    assert (counts.abandoned, counts.given_up, counts.overdue) == (2, 0, 0)


def test_core_becoming_overdue_is_as_urgent_as_a_fault():
    w = World()
    urgent: list[int] = []
    w.core.on_fault = lambda: urgent.append(1)
    w.start()
    w.now += 2.0
    w.core.tick()
    assert urgent == [1]


def test_core_without_a_strategy_the_rules_are_stale_defaults_in_the_users_order():
    w = World()
    assert [(r.stale, r.snapshot.rank, r.snapshot.admit) for r in w.core.rules.by_target.values()] == [
        (True, 0, 1.0), (True, 1, 1.0), (True, 0, 1.0),
    ]  # fmt: skip


def test_core_a_strategy_holds_for_its_time_to_live_and_then_the_defaults():
    w = World()
    w.publish(admit=0.0, ttl_ms=10_000)
    w.now += 9.9
    w.core.tick()
    assert not w.core.rules.by_target[A].stale
    w.now += 0.2
    w.core.tick()
    rule = w.core.rules.by_target[A]
    assert (rule.stale, rule.snapshot.admit) == (True, 1.0)


def test_core_a_leader_that_was_seen_renews_the_time_to_live_and_an_absent_one_does_not():
    w = World()
    w.publish(admit=0.0, ttl_ms=10_000)
    w.now += 8
    w.core.strategy(Applied.SAME, w.now)
    w.now += 8
    w.core.tick()
    assert not w.core.rules.by_target[A].stale
    w.core.strategy(Applied.SAME, None)
    w.now += 3
    w.core.tick()
    assert w.core.rules.by_target[A].stale


def test_core_when_the_leader_is_back_a_stale_strategy_holds_again():
    w = World()
    w.publish(admit=0.0, ttl_ms=10_000)
    w.now += 60
    w.core.tick()
    assert w.core.rules.by_target[A].stale
    w.core.strategy(Applied.SAME, w.now)
    assert not w.core.rules.by_target[A].stale


def test_core_an_old_strategy_read_at_start_counts_from_when_its_leader_was_last_seen():
    w = World()
    snapshot = Snapshot(target=A, revision=1, epoch=5, state=State.UNHEALTHY, admit=0.0, ttl_ms=10_000)
    fields = {b"_": encode(Wake(5, 1)), A.encode(): encode(snapshot)}
    w.core.strategy(w.core.book.read_all(fields, None), w.now - 3_600)
    assert w.core.rules.by_target[A].stale


def test_core_apply_lag_is_of_verdicts_alone():
    w = World()
    now_ms = 1_000_000 + int(w.now * 1000)
    w.publish(state=State.HEALTHY, since_at_ms=now_ms - 9_000)
    assert w.core.apply_lag_ms == 0, "what was there before us did not come late"
    w.publish(state=State.UNHEALTHY, since_at_ms=now_ms - 4)
    assert w.core.apply_lag_ms == 4
    w.now += 7
    w.publish(state=State.UNHEALTHY, since_at_ms=now_ms - 4, reason="an override, no verdict")
    assert w.core.apply_lag_ms == 4


def test_core_a_hold_off_in_redis_time_becomes_a_moment_of_this_hosts_monotonic_clock():
    w = World()
    w.publish(state=State.LIMITED, hold_off_until_at_ms=int(1_000_000 + (w.now + 4) * 1000))
    assert abs(w.core.rules.by_target[A].hold_off_until_mono - (w.now + 4)) < 0.002
    assert w.core.rules.clock_offset_ms == 1_000_000


def test_core_a_worker_has_at_most_32_targets_and_says_what_is_over():
    w = World(specs=[TargetSpec(f"llm:p:m{n}", n) for n in range(MAX_TARGETS_PER_WORKER + 3)])
    w.core.hold([TargetSpec("llm:p:m34", 34)])
    attempt = w.start("llm:p:m99")
    w.core.failed(attempt, FaultKind.SERVER)
    report = w.core.report(0)
    assert len(report.targets) == MAX_TARGETS_PER_WORKER
    assert report.targets_left_out == 4
    assert decode_worker(encode(report)) == report


def test_core_what_is_no_target_id_spoils_no_report():
    w = World()
    w.core.hold([TargetSpec("nonsense", 0), TargetSpec("llm:x:\n", 1), TargetSpec("llm:x:" + "m" * 300, 2)])
    w.fail("")
    report = w.core.report(0)
    assert len(report.targets) == 3
    assert decode_worker(encode(report)) == report


def test_core_an_outcome_whose_start_was_lost_counts_as_started_too():
    w = World()
    w.core.failed(99, FaultKind.CUT, target=A)
    w.core.succeeded(98, USE)
    counts = w.counts()
    assert (counts.started, counts.in_flight, counts.ok) == (1, 0, 0)
    assert counts.faults == {FaultKind.CUT: 1}
    assert w.core.strays == 2


def test_core_a_job_that_dies_leaves_nothing_in_the_air():
    w = World()
    for job in (1, 2):
        for attempt in (1, 2):
            w.core.started(flight_key(job, attempt), A, w.now)
    assert w.core.abandon_job(1) == 2
    counts = w.counts()
    assert (counts.in_flight, counts.abandoned) == (2, 2)


def test_core_a_listener_that_raises_stops_nobody():
    w = World()

    def broken(_: Rules) -> None:
        raise TypeError("a handler's bug")

    w.core.listen(broken)
    told: list[Rules] = []
    stop = w.core.listen(told.append)
    w.publish(admit=0.0)
    assert len(told) == 1
    stop()
    w.publish(admit=0.5)
    assert len(told) == 1


_steps = st.lists(
    st.tuples(st.sampled_from(["start", "out", "ok", "fail", "drop", "tick"]), st.sampled_from([A, B]),
              st.integers(0, 5), st.sampled_from(list(FaultKind))),
    max_size=80,
)  # fmt: skip


@settings(deadline=None)  # a busy machine is no failure
@given(_steps)
def test_core_invariants_whatever_happens(steps: list[tuple[str, str, int, FaultKind]]):
    w = World()
    live: list[int] = []
    last: Report | None = None
    for what, target, pick, kind in steps:
        w.now += 0.4
        if what == "start":
            live.append(w.start(target))
        elif what == "tick":
            w.core.tick()
        elif live:
            attempt = live[pick % len(live)]
            if what == "out":
                w.core.first_output(attempt, pick * 300)
            else:
                live.remove(attempt)
                if what == "ok":
                    w.core.succeeded(attempt, USE)
                elif what == "fail":
                    w.core.failed(attempt, kind)
                else:
                    w.core.abandoned(attempt)
        report = w.core.report(0)
        assert all(0 <= e.fresh_overdue <= e.overdue for e in w.core.entries.values())
        for counts in report.targets:
            ended = counts.ok + counts.abandoned + sum(counts.faults.values())
            assert counts.started == ended + counts.in_flight
            assert 0 <= counts.overdue <= counts.in_flight
            assert sum(counts.histogram) == counts.first_outputs <= counts.started
        if last is not None:
            for before, after in zip(last.targets, report.targets, strict=True):
                assert after.started >= before.started
                assert after.ok >= before.ok
        last = report
        # Whatever the breaker did, someone of each role is admitted without panic.
        route = Plan(w.core.rules.by_target, SPECS[:2]).route("s", 0, w.now)
        assert route.targets
        assert not route.panic
