"""Reports become evidence: repeated, overtaken, late, from other boots, nonsense."""

from __future__ import annotations

from supervisor.core.inputs import Reported, WorkerLeft
from supervisor.wire.messages import MAX_TARGETS_PER_FLEET, Report, TargetCounts
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.engine_kit import ONE, Rig, again


def test_a_report_twice_or_overtaken_counts_once() -> None:
    rig = Rig()
    rig.ok("w0", n=3)
    first = rig.report("w0")
    rig.ok("w0", n=2)
    rig.send(Reported(first))
    assert rig.target().totals.ok == 5
    assert rig.state.counters["reports_repeated"] == 1


def test_a_lost_report_heals_with_the_next() -> None:
    rig = Rig()
    rig.counters["w0", ONE].ok = rig.counters["w0", ONE].started = 7
    rig.seq["w0"] += 4
    rig.ok("w0")
    assert rig.target().totals.ok == 8


def test_counters_that_go_backwards_void_the_entry() -> None:
    rig = Rig()
    rig.ok("w0", n=5)
    rig.counters["w0", ONE].ok -= 2
    rig.report("w0")
    assert rig.target().totals.ok == 5
    rig.counters["w0", ONE].ok += 2
    rig.fail("w0")
    rig.counters["w0", ONE].faults = {}
    rig.report("w0")
    assert rig.target().totals.faults == 1
    assert rig.state.counters["counters_backwards"] == 2


def test_a_late_report_goes_to_history_only() -> None:
    rig = Rig()
    rig.counters["w0", ONE].faults[FaultKind.SERVER] = 9
    rig.report("w0", late_ms=2_500)
    assert rig.target().run == 0
    assert rig.target().totals.faults == 0
    assert rig.state.counters["reports_late"] == 1
    rig.fail("w0")
    assert rig.target().run == 1


def test_what_spans_a_silence_goes_to_history_only() -> None:
    rig = Rig()
    rig.silent.add("w0")
    rig.wait(5)
    rig.fail("w0", n=30)
    assert rig.target().run == 0
    assert rig.target().totals.faults == 0
    assert rig.state.counters["reports_late"] == 1


def test_a_new_boot_counts_from_zero_and_the_old_one_never_returns() -> None:
    rig = Rig()
    rig.ok("w0", n=5)
    old = rig.report("w0")
    fresh = again(old, boot="b2", seq=1, targets=(TargetCounts(ONE, started=2, ok=2, first_outputs=2),))
    rig.send(Reported(fresh))
    assert rig.target().totals.ok == 7
    rig.send(Reported(again(old, seq=old.seq + 1)))
    assert rig.target().totals.ok == 7
    assert rig.state.counters["boots_returned"] == 1


def test_an_unseen_beginning_is_only_a_baseline() -> None:
    rig = Rig()
    counts = TargetCounts(
        ONE, started=5_000, ok=4_000, faults={FaultKind.SERVER: 900}, in_flight=3, overdue=3
    )
    rig.send(Reported(Report("new", "b9", 700, 0, "h", (counts,), sessions=2)))
    assert rig.target().run == 0
    assert rig.target().fleet_run == 0
    assert rig.target().totals.started == 0
    assert rig.target().in_flight == 3


def test_a_silent_workers_gauges_are_forgotten_then_the_worker() -> None:
    rig = Rig()
    rig.hang("w0", n=3)
    assert rig.target().overdue == 3
    rig.silent.add("w0")
    rig.wait(4)
    assert rig.target().overdue == 0
    assert "w0" in rig.state.workers
    rig.wait(13)
    assert "w0" not in rig.state.workers


def test_a_goodbye_of_another_boot_is_not_ours() -> None:
    rig = Rig()
    rig.send(WorkerLeft("w0", "other"))
    assert "w0" in rig.state.workers
    rig.send(WorkerLeft("w0", "b1"))
    assert "w0" not in rig.state.workers
    assert "w0" not in rig.target().workers


def test_unreadable_and_too_many_targets_are_counted() -> None:
    rig = Rig()
    rig.send(Reported(Report("x", "b", 1, 0, "h", (TargetCounts("video:a:b"), TargetCounts("llm:ü:m/o:d")))))
    assert rig.state.counters["targets_unreadable"] == 1
    assert "llm:ü:m/o:d" in rig.state.targets
    for n in range(20):
        targets = tuple(TargetCounts(f"llm:p{n}:m{i}") for i in range(32))
        rig.send(Reported(Report(f"y{n}", "b", 1, 0, "h", targets)))
    assert len(rig.state.targets) == MAX_TARGETS_PER_FLEET
    assert rig.state.counters["targets_over"] > 0


def test_answers_under_way_do_not_hide_an_outage() -> None:
    """Given streams that were begun before it, when new attempts fail, then their good ends break no run."""
    rig = Rig()
    for worker in rig.sessions:
        c = rig.counters[worker, ONE]
        c.started += 3
        c.first += 3
        c.in_flight = 3
        rig.report(worker)
    for n in range(12):
        worker = f"w{n % 4}"
        c = rig.counters[worker, ONE]
        if c.in_flight:
            c.in_flight -= 1
            c.ok += 1
            c.trailing = 0
            rig.report(worker)
        rig.fail(worker)
        rig.now += 50
        if rig.state_of() is State.UNHEALTHY:
            break
    assert rig.state_of() is State.UNHEALTHY


def test_fresh_completions_break_a_run() -> None:
    rig = Rig()
    for n in range(40):
        rig.now += 100
        rig.fail(f"w{n % 4}")
        rig.ok(f"w{(n + 1) % 4}", n=2)
        rig.answer(None)
    assert rig.state_of() is not State.UNHEALTHY


def test_a_first_output_takes_overdue_back() -> None:
    rig = Rig()
    rig.hang("w0", n=2)
    rig.hang("w1", n=2)
    assert rig.target().overdue_run == 4
    c = rig.counters["w0", ONE]
    c.overdue -= 1
    c.first += 1
    rig.report("w0")
    assert rig.target().overdue_run == 0
    rig.hang("w1")
    assert rig.target().overdue_run == 1


def test_attempts_given_up_while_overdue_stay_evidence() -> None:
    rig = Rig()
    rig.hang("w0", n=3)
    c = rig.counters["w0", ONE]
    c.overdue = c.in_flight = 0
    c.abandoned = c.given_up = 3
    rig.report("w0")
    assert rig.target().fleet_run == 3
