"""The pure parts of the leader's rim: its clock, history, book, recorder and outbox; and how it logs."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from supervisor.core.inputs import Tick
from supervisor.runtime.clock import ClockGap, LeaderClock
from supervisor.runtime.context import RuntimeCounters
from supervisor.runtime.history import History
from supervisor.runtime.inboxes import Inboxes, cursor_of
from supervisor.runtime.kept import KeptBook, Mark, decode_book
from supervisor.runtime.outbox import MAX_WAITING, Outbox
from supervisor.runtime.recorder import BATCH, MAX_HELD, Recorder
from supervisor.runtime.saved import InboxMark
from supervisor.store.history import COARSE, FINE, HistoryPoint, Step
from supervisor.store.recording import decode_batch
from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import OverrideRecord, Report, TargetCounts
from supervisor.wire.vocabulary import FaultKind, OverrideState

T0 = 1_700_000_000_000
TARGET = "llm:groq:m"
KEYS = Keys("parts")


# --- clock: (TIME, monotonic seconds) → now, gap


def test_time_goes_on_and_small_steps_back_stand_still() -> None:
    clock = LeaderClock()
    assert clock.read(T0, 10.0) == (T0, T0, None)
    assert clock.read(T0 + 100, 10.1) == (T0 + 100, T0 + 100, None)
    assert clock.read(T0 - 800, 10.2) == (T0 + 100, T0 - 800, None)
    assert clock.read(T0 + 200, 11.2) == (T0 + 200, T0 + 200, None)
    assert clock.offset_ms == 0


def test_a_fall_back_is_made_up_for_and_time_goes_on_at_its_pace() -> None:
    clock = LeaderClock()
    clock.read(T0, 10.0)
    back = clock.read(T0 - 60_000, 10.5)
    assert (back.now_ms, back.gap) == (T0 + 500, ClockGap.TIME_BACK)
    assert clock.read(T0 - 59_000, 11.5) == (T0 + 1_500, T0 - 59_000, None)
    # What workers compare with is the server's own time; 0 is no time.
    assert clock.to_redis(T0 + 1_500) == T0 - 59_000
    assert clock.to_redis(0) == 0
    # The old server is back: what was added is taken off again, and time does not go back for it.
    ahead = clock.read(T0 + 2_000, 12.0)
    assert (ahead.now_ms, ahead.gap, clock.offset_ms) == (T0 + 2_000, ClockGap.TIME_JUMP, 0)


@pytest.mark.parametrize(
    ("redis_ms", "mono_s", "gap"),
    [
        (T0 + 1_900, 11.9, None),
        (T0 + 2_100, 12.1, ClockGap.PAUSED),
        (T0 + 5_000, 10.1, None),
        (T0 + 5_200, 10.1, ClockGap.TIME_JUMP),
        (T0 - 900, 10.1, None),
        (T0 - 950, 10.1, ClockGap.TIME_BACK),
    ],
)
def test_when_a_step_is_a_gap(redis_ms: int, mono_s: float, gap: ClockGap | None) -> None:
    clock = LeaderClock()
    clock.read(T0, 10.0)
    assert clock.read(redis_ms, mono_s).gap is gap


@pytest.mark.parametrize(("ahead_ms", "gap"), [(900, None), (5_000, ClockGap.TIME_BACK), (-5_000, None)])
def test_a_new_leader_never_begins_before_the_last_one_ended(ahead_ms: int, gap: ClockGap | None) -> None:
    clock = LeaderClock(T0 + ahead_ms)
    first = clock.read(T0, 10.0)
    assert (first.now_ms, first.gap) == (T0 + max(0, ahead_ms), gap)
    assert clock.read(T0 + 1_000, 11.0).now_ms == T0 + 1_000 + (ahead_ms if gap else 0)


# --- inboxes


def test_cursors_that_are_none_begin_at_the_start() -> None:
    marks = {"w1": InboxMark("5-7", "b"), "w2": InboxMark("rubbish", "b"), "no worker": InboxMark("1-1")}
    inboxes = Inboxes(KEYS, RuntimeCounters())
    inboxes.restore(marks, 10.0)
    assert inboxes.cursors == {KEYS.inbox("w1").encode(): b"5-7", KEYS.inbox("w2").encode(): b"0-0"}
    assert inboxes.marks()["w1"] == marks["w1"]
    for text in ("", "5", " 5-0", "5-", "-1-1", "5-0 ", "9" * 20 + "-0"):
        assert cursor_of(text) == b"0-0", text


# --- history: cumulative reports → counts per step


def report(seq: int, started: int, ok: int, faults: int = 0, boot: str = "b", worker: str = "w") -> Report:
    kinds = {FaultKind.SERVER: faults} if faults else {}
    counts = TargetCounts(TARGET, started, ok, kinds, first_outputs=ok, histogram=(0, ok))
    return Report(worker, boot, seq, 0, "h", (counts,))


def close(
    history: History, at_ms: int, found: dict[tuple[str, str], HistoryPoint] | None = None
) -> dict[Step, HistoryPoint]:
    assert history.due(at_ms)
    return dict(history.close(at_ms, [("w", "b")], found or {}).get(TARGET, []))


def test_a_boot_from_its_beginning_counts_from_nothing_and_one_met_later_from_there() -> None:
    for seq, attempts in ((1, 5), (40, 2)):
        history = History(T0)
        history.take(report(seq, 3, 3))
        history.take(report(seq + 1, 5, 4, 1))
        point = close(history, T0 + 5_000)[FINE]
        assert (point.at_ms, point.attempts) == (T0, attempts)
        assert point.faults == {"server": 1}
        assert point.histogram[1] == (4 if seq == 1 else 1)


def test_a_minute_adds_up_its_steps_and_quiet_steps_write_nothing() -> None:
    at = COARSE.start(T0) + 60_000
    history = History(at)
    history.take(report(1, 2, 2))
    close(history, at + 5_000)
    assert close(history, at + 10_000) == {}
    history.take(report(2, 6, 5, 1))
    points = close(history, at + 15_000)
    assert (points[FINE].attempts, points[COARSE].attempts) == (4, 6)
    assert (points[FINE].at_ms, points[COARSE].at_ms) == (at + 10_000, at)


def test_counters_that_fall_and_workers_that_left_add_nothing() -> None:
    history = History(T0)
    history.take(report(1, 6, 6))
    history.take(report(2, 4, 4))  # late: older than what was seen
    assert close(history, T0 + 5_000)[FINE].attempts == 4
    history.take(report(9, 50, 50, worker="gone"))
    close(history, T0 + 10_000)
    history.take(report(10, 60, 60, worker="gone"))  # it was not followed: met anew, in mid-life
    assert close(history, T0 + 15_000) == {}


def test_what_another_leader_counted_in_the_open_step_is_kept_once() -> None:
    begin = FINE.start(T0)
    history = History(begin + 2_000)
    assert history.wanted() == [(FINE, begin), (COARSE, COARSE.start(begin))]
    history.take(report(1, 3, 3))
    theirs = HistoryPoint(begin, 7, 6, {"server": 1})
    found = {(TARGET, FINE.prefix): theirs, (TARGET, COARSE.prefix): HistoryPoint(COARSE.start(begin), 9, 9)}
    points = close(history, begin + 5_000, found)
    assert (points[FINE].attempts, points[FINE].faults, points[COARSE].attempts) == (10, {"server": 1}, 12)
    history.take(report(2, 4, 4))
    points = close(history, begin + 10_000, {(TARGET, COARSE.prefix): points[COARSE]})
    assert points[FINE].attempts == 1
    assert points[COARSE].attempts == 13


# --- book


def record(state: OverrideState = OverrideState.FORCED_HEALTHY) -> bytes:
    return encode(OverrideRecord(TARGET, state, "why", "who", T0, T0 + 1))


def test_marks_order_changes_over_leaders() -> None:
    book = KeptBook().changed(5, "override", TARGET, record())
    later = book.changed(5, "override", TARGET, None)
    newer_leader = book.changed(9, "tokens", "t", b"x")
    assert [b.mark for b in (book, later, newer_leader)] == [(5, 1), (5, 2), (9, 1)]
    # One whose epoch is behind (it cannot have written, but a file may say so) never orders lower.
    assert later.changed(3, "override", TARGET, record()).mark == (5, 3)
    assert newer_leader.mark > later.mark > book.mark > Mark()
    assert set(book.overrides) == {TARGET}
    assert later.empty
    for text, mark in (("5-2", (5, 2)), ("", (0, 0)), ("x-1", (0, 0)), ("7", (0, 0))):
        assert Mark.parse(text) == mark
    assert Mark.parse(str(later.mark)) == later.mark


def test_a_book_survives_its_file_and_what_is_no_book_is_none() -> None:
    book = KeptBook().changed(5, "override", TARGET, record()).changed(5, "override", "llm:x:y", b"\x01junk")
    again = decode_book(book.encode())
    assert again is not None
    assert (again.mark, again.tables) == (book.mark, book.tables)
    # A record that cannot be read is in nobody's way, and is not thrown away either.
    assert set(again.overrides) == {TARGET}
    assert set(again.tables["override"]) == {TARGET, "llm:x:y"}
    for raw in (None, b"", b"\x02abc", book.encode()[:-4], b"\x01" + msgspec.msgpack.encode({"a": 1})):
        assert decode_book(raw) is None


# --- recorder and outbox


def test_the_recorder_hands_over_batches_and_drops_what_it_cannot_hold() -> None:
    counters = RuntimeCounters()
    recorder, outbox = Recorder(counters), Outbox(KEYS, counters)
    for n in range(MAX_HELD + 3):
        recorder.add(T0 + n, Tick())
    recorder.flush(outbox)
    assert counters.recording_dropped == 3
    entries = outbox.head()
    assert len(entries) == MAX_HELD // BATCH
    first = decode_batch(entries[0].fields[FIELD])  # pyright: ignore[reportArgumentType]  # bytes here
    assert first is not None
    assert (len(first), first[0]) == (BATCH, (T0, Tick()))
    # The bound of the stream counts inputs, its entries hold many.
    assert entries[0].max_len == 200_000 // BATCH
    recorder.flush(outbox)
    assert len(outbox) == len(entries)


def test_the_outbox_keeps_what_was_not_taken_in_order_and_drops_the_oldest() -> None:
    counters = RuntimeCounters()
    outbox = Outbox(KEYS, counters)
    outbox.add("events", {FIELD: b"0"})
    for n in range(MAX_WAITING):
        outbox.add("audit", {FIELD: str(n)})
    assert counters.outbox_dropped == {"events": 1}
    assert [entry.fields[FIELD] for entry in outbox.head(2)] == ["0", "1"]
    outbox.done(1)
    assert outbox.head(1)[0].fields[FIELD] == "1"
    assert outbox.head(1)[0].key == KEYS("audit")
    outbox.done(10 * MAX_WAITING)
    assert not len(outbox)
    outbox.done(1)


# --- logs


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exceptions_text_is_in_no_log(form: str) -> None:
    code = f"""
import structlog
from supervisor.runtime.logs import configure_logs
from supervisor.settings import read_settings
configure_logs(read_settings(log_format="{form}"))
try:
    raise RuntimeError("redis://:hunter2@host")
except RuntimeError as exc:
    structlog.get_logger().error("it failed", action="x", exc_info=exc)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "RuntimeError" in ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr
