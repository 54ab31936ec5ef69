"""The container's knowledge: counts, its own breaker, time to live, rules. Time is set by the tests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.admission import Plan
from supervisor.core.breaker import OPEN_S
from supervisor.wire.codec import decode_worker, encode
from supervisor.wire.messages import MAX_TARGETS_PER_WORKER, Report, Snapshot, TargetCounts, Wake
from supervisor.wire.vocabulary import FaultKind, State
from worker.link.api import Rules, TargetSpec, Use
from worker.link.core import LinkCore
from worker.link.ledger import flight_key
from worker.link.strategy import Applied

A, B, V = "llm:groq:a", "llm:openai:b", "tts:cartesia:v"
SPECS = [TargetSpec(A, 0, "key-a"), TargetSpec(B, 1), TargetSpec(V, 0)]
USE = Use(tokens=3, characters=4, audio_ms=5)


class World:
    """A core with its time in hand. Redis TIME is `1_000_000 + seconds * 1000`."""

    def __init__(self, specs: list[TargetSpec] | None = None) -> None:
        self.now = 1_000.0
        self.core = LinkCore("w1", "boot", "host", lambda: self.now, lambda: self.now * 1000)
        self.core.redis_clock.measured(1_000_000 + self.now * 1000, self.now, self.now)
        self.seen: list[Rules] = []
        self.core.listen(self.seen.append)
        self.core.hold(SPECS if specs is None else specs)
        self._keys = 0
        self.revision = 0

    def start(self, target: str = A) -> int:
        self._keys += 1
        self.core.started(self._keys, target, self.now)
        return self._keys

    def fail(self, target: str = A, kind: FaultKind = FaultKind.SERVER, times: int = 1) -> None:
        for _ in range(times):
            self.core.failed(self.start(target), kind)

    def succeed(self, target: str = A) -> None:
        self.core.succeeded(self.start(target), USE)

    def counts(self, target: str = A) -> TargetCounts:
        report = self.core.report(0)
        return next(c for c in report.targets if c.target == target)

    def publish(self, target: str = A, state: State = State.UNHEALTHY, **over: Any) -> Applied:
        self.revision += 1
        snapshot = Snapshot(target=target, revision=self.revision, epoch=5, state=state, **over)
        applied = self.core.book.wake(encode(Wake(5, self.revision, (snapshot,))), None)
        self.core.strategy(applied)
        return applied

    def open(self, target: str = A) -> bool:
        return self.now < self.core.rules.by_target[target].local_open_until_mono


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


def test_core_a_job_that_dies_with_overdue_attempts_says_nothing_of_their_target():
    w = World()
    w.core.started(flight_key(1, 1), A, w.now)
    w.now += 2.0
    w.core.tick()
    w.core.abandon_job(1)
    counts = w.counts()
    assert (counts.abandoned, counts.given_up, counts.overdue) == (1, 0, 0)


def test_core_becoming_overdue_is_as_urgent_as_a_fault():
    w = World()
    urgent: list[int] = []
    w.core.on_fault = lambda: urgent.append(1)
    w.start()
    w.now += 2.0
    w.core.tick()
    assert urgent == [1]


def test_core_three_faults_in_a_row_open_the_local_breaker_and_tell_the_listeners():
    w = World()
    w.fail(times=2)
    assert not w.open()
    told = len(w.seen)
    w.fail()
    assert w.open()
    assert len(w.seen) > told
    assert w.core.local_open() == (A,)
    w.now += OPEN_S
    assert not w.open()


def test_core_hanging_attempts_open_the_local_breaker_before_they_fail():
    w = World()
    for _ in range(3):
        w.start()
    w.now += 1.7
    w.core.tick()
    assert w.open()


def test_core_late_attempts_among_many_that_are_answered_are_no_hang():
    w = World()
    for _ in range(20):
        w.start()  # one in two never answers ...
        answered = w.start()
        w.now += 1.7
        w.core.tick()
        w.core.first_output(answered, 1_700)  # ... but the others do
        w.core.succeeded(answered, USE)
        assert not w.open()
    assert w.counts().overdue == 20


def test_core_late_attempts_given_up_after_another_was_answered_are_no_faults_for_the_breaker():
    w = World()
    late = [w.start(), w.start()]
    w.now += 1.7
    w.core.tick()
    w.core.first_output(w.start(), 100)
    for attempt in late:
        w.core.abandoned(attempt)
    assert w.counts().given_up == 2
    w.fail(times=2)
    assert not w.open()
    w.fail()
    assert w.open()


def test_core_the_last_admitted_target_of_a_role_is_never_put_off():
    w = World()
    w.fail(A, times=5)
    w.fail(B, times=5)
    w.fail(V, times=5)
    assert w.open(A)
    assert not w.open(B)
    assert not w.open(V)


def test_core_a_target_the_leader_has_shut_is_nobody_to_fall_back_to():
    w = World()
    w.publish(B, State.UNHEALTHY, admit=0.0)
    w.fail(A, times=5)
    assert not w.open(A)


def test_core_a_success_closes_the_local_breaker_at_once():
    w = World()
    late = w.start()
    w.fail(times=3)
    assert w.open()
    w.core.succeeded(late, USE)
    assert not w.open()


def test_core_the_local_breaker_never_says_anything_to_the_leader_but_counts():
    w = World()
    w.fail(times=3)
    report = w.core.report(0)
    assert (report.epoch, report.revision, report.refused) == (0, 0, {})


def test_core_retries_end_when_the_budget_is_spent_and_come_back_with_successes():
    w = World()
    w.fail(times=5)
    assert not w.core.rules.by_target[A].retry_allowed
    for _ in range(2):
        w.succeed()
    assert w.core.rules.by_target[A].retry_allowed
    assert w.core.rules.by_target[B].retry_allowed


def test_core_a_local_fault_costs_no_retries():
    w = World()
    w.fail(kind=FaultKind.LOCAL, times=20)
    assert w.core.rules.by_target[A].retry_allowed


def test_core_panic_means_no_retries():
    w = World()
    w.publish(panic=True)
    assert not w.core.rules.by_target[A].retry_allowed


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


def test_core_rules_that_did_not_change_are_told_to_nobody():
    w = World()
    told = len(w.seen)
    for _ in range(20):
        w.succeed()
        w.core.tick()
        w.core.rebuild()
    assert len(w.seen) == told


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
