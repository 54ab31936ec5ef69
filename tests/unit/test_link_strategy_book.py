"""What of a strategy is applied, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.wire.codec import encode
from supervisor.wire.messages import Report, Snapshot, Wake
from supervisor.wire.vocabulary import State
from worker.link.strategy import WAKE_SUBJECT, Applied, Head, StrategyBook

A, B = "llm:groq:a/b:c ü", "tts:cartesia:v"
NOW = 1_800_000_000_000


def snap(target: str = A, revision: int = 1, epoch: int = 1, **over: Any) -> Snapshot:
    return Snapshot(target=target, revision=revision, epoch=epoch, state=State.UNHEALTHY, **over)


def wake(book: StrategyBook, epoch: int, revision: int, *snaps: Snapshot, removed: tuple[str, ...] = ()):
    return book.wake(encode(Wake(epoch, revision, snaps, removed)), NOW)


def stored(epoch: int, revision: int, *snaps: Snapshot) -> dict[bytes, bytes]:
    return {b"_": encode(Wake(epoch, revision)), **{s.target.encode(): encode(s) for s in snaps}}


def test_book_applies_what_is_newer_in_epoch_and_revision():
    book = StrategyBook()
    assert wake(book, 1, 1, snap()) is Applied.MISSED  # what was before the first one heard is to be read
    assert wake(book, 1, 2, snap(revision=2, admit=0.5)) is Applied.CHANGED
    assert book.snapshots[A].admit == 0.5
    assert book.head == Head(1, 2)


def test_book_ignores_a_leader_of_a_lower_epoch_whatever_its_revision():
    book = StrategyBook()
    wake(book, 7, 3, snap(epoch=7, revision=3))
    assert wake(book, 6, 99, snap(epoch=6, revision=99, admit=0.9)) is Applied.OLDER
    assert book.read_all(stored(6, 99, snap(epoch=6, revision=99)), NOW) is Applied.OLDER
    assert book.snapshots[A].epoch == 7
    assert book.head == Head(7, 3)


def test_book_a_higher_epoch_with_a_lower_revision_is_newer():
    book = StrategyBook()
    wake(book, 7, 300, snap(epoch=7, revision=300))
    assert wake(book, 8, 2, snap(epoch=8, revision=2, admit=0.3)) is Applied.MISSED
    assert book.snapshots[A].admit == 0.3


def test_book_notices_that_something_was_missed():
    book = StrategyBook()
    wake(book, 1, 1, snap())
    assert wake(book, 1, 3, snap(revision=3)) is Applied.MISSED


def test_book_a_strategy_in_several_wake_ups_of_one_head_is_applied_whole():
    book = StrategyBook()
    wake(book, 1, 1)
    assert wake(book, 1, 2, snap(revision=2)) is Applied.CHANGED
    assert wake(book, 1, 2, snap(B, revision=2)) is Applied.CHANGED
    assert wake(book, 1, 2, snap(B, revision=2)) is Applied.SAME
    assert set(book.snapshots) == {A, B}


def test_book_a_wake_up_twice_changes_nothing():
    book = StrategyBook()
    wake(book, 1, 1, snap())
    before = dict(book.snapshots)
    assert wake(book, 1, 1, snap(admit=0.7)) is Applied.SAME
    assert book.snapshots == before


def test_book_forgets_removed_targets():
    book = StrategyBook()
    wake(book, 1, 1, snap(), snap(B))
    wake(book, 1, 2, removed=(A,))
    assert set(book.snapshots) == {B}
    assert book.read_all(stored(1, 3), NOW) is Applied.CHANGED
    assert book.snapshots == {}


def test_book_an_emptied_redis_takes_nothing_away():
    book = StrategyBook()
    wake(book, 1, 1, snap())
    assert book.read_all({}, NOW) is Applied.EMPTY
    assert book.head_read(None, NOW) is Applied.EMPTY
    assert set(book.snapshots) == {A}


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_output_ms": 0},
        {"stall_ms": 0},
        {"overdue_ms": 0},
        {"ttl_ms": 0},
        {"backoff_base_ms": 500, "backoff_cap_ms": 100},
        {"hold_off_until_at_ms": NOW + 3_600_001},
        {"target": "no target id"},
        {"target": "brain:groq:m"},
    ],
)
def test_book_refuses_a_snapshot_that_makes_no_sense_and_keeps_the_old(wrong: dict[str, Any]):
    book = StrategyBook()
    wake(book, 1, 1, snap(admit=0.25))
    over: dict[str, Any] = {"target": A, "revision": 2, **wrong}
    bad = snap(**over)
    wake(book, 1, 2, bad, snap(B, revision=2))
    assert book.snapshots[A].admit == 0.25
    assert set(book.snapshots) == {A, B}
    assert book.refused[bad.target]
    assert book.head == Head(1, 2)


def test_book_a_good_snapshot_ends_the_refusal():
    book = StrategyBook()
    wake(book, 1, 1, snap(ttl_ms=0))
    assert A in book.refused
    wake(book, 1, 2, snap(revision=2))
    assert book.refused == {}


def test_book_one_unreadable_field_does_not_cost_the_others():
    book = StrategyBook()
    fields = stored(1, 1, snap()) | {B.encode(): b"\x01garbage", b"x": b"", b"\xff" * 300: b"\x01"}
    assert book.read_all(fields, NOW) is Applied.CHANGED
    assert set(book.snapshots) == {A}
    assert B in book.refused
    # What is said of it must fit into a report, whatever the field was called.
    assert all(5 <= len(subject) <= 200 for subject in book.refused)


def test_book_a_snapshot_under_another_targets_name_is_refused():
    book = StrategyBook()
    book.read_all({b"_": encode(Wake(1, 1)), B.encode(): encode(snap())}, NOW)
    assert book.snapshots == {}
    assert "another target" in book.refused[B]


def test_book_an_epoch_of_the_day_after_tomorrow_is_refused_or_it_would_deafen_for_days():
    book = StrategyBook()
    assert wake(book, NOW + 2 * 86_400_000, 1, snap()) is Applied.REFUSED
    assert book.head == Head(0, 0)
    assert wake(book, NOW, 1, snap(epoch=NOW)) is not Applied.REFUSED
    assert WAKE_SUBJECT not in book.refused


def test_book_a_refusal_of_the_strategy_ends_when_all_of_it_was_read_well():
    book = StrategyBook()
    assert book.wake(b"garbage", NOW) is Applied.REFUSED
    assert book.refused == {WAKE_SUBJECT: "unknown_version wake-up"}
    book.read_all(stored(1, 1, snap()), NOW)
    assert book.refused == {}


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=300))
def test_book_survives_any_bytes(data: bytes):
    book = StrategyBook()
    wake(book, 1, 1, snap())
    for given_bytes in (data, b"\x01" + data):
        assert book.wake(given_bytes, NOW) in Applied
        assert book.read_all({b"_": given_bytes, b"f": given_bytes, A.encode(): given_bytes}, NOW) in Applied
    assert A in book.snapshots


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.booleans()), max_size=40))
def test_book_head_only_rises(steps: list[tuple[int, int, bool]]):
    book = StrategyBook()
    for epoch, revision, all_of_it in steps:
        before = book.head
        if all_of_it:
            book.read_all(stored(epoch, revision, snap(epoch=epoch, revision=revision)), NOW)
        else:
            wake(book, epoch, revision, snap(epoch=epoch, revision=revision))
        assert not book.head < before
        for snapshot in book.snapshots.values():
            assert not book.head < Head(snapshot.epoch, snapshot.revision)


def test_book_refusals_fit_into_a_report():
    book = StrategyBook()
    wake(book, 1, 1, *(snap(f"llm:p:{'m' * 150}{n}", ttl_ms=0) for n in range(60)))
    assert len(book.refused) == 32
    encode(Report("w", "b", 1, 0, "h", refused=book.refused))
