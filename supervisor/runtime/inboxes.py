"""From stream entries to inputs of the engine: cursors, boots, and what cannot be read. Pure, no I/O.

Rules: a cursor passes an entry before the entry is looked at, so no entry is looked at twice; a worker is who
its stream's name says; of two processes that report as one worker, the one that came later is heard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from supervisor.core.inputs import Input, ProbeEnded, Reported, WorkerLeft
from supervisor.runtime.saved import InboxMark
from supervisor.wire.codec import decode_worker
from supervisor.wire.errors import WireError
from supervisor.wire.keys import FIELD, is_worker
from supervisor.wire.messages import ProbeResult, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from supervisor.runtime.context import RuntimeCounters
    from supervisor.wire.keys import Keys

FIRST = b"0-0"
DEAD_BYTES = 512
# A replaced container may still send its last report; only what goes on after this is a clash.
CLASH_AFTER_MS = 2_000
CLASH_SAID_EVERY_MS = 60_000
# A cursor is kept as long as its stream may live, so that a worker that returns is not read twice.
FORGET_AFTER_S = 130.0
# An epoch is a time in ms; one from beyond the next year is a broken worker's, not a leader's.
EPOCH_AHEAD_MS = 366 * 86_400_000
_MAX_RETIRED = 8
_FIELD = FIELD.encode()
_ID = re.compile(r"\d{1,19}-\d{1,19}\Z")


class Poison(NamedTuple):
    """An entry that could not be read: goes to `dead` and is stepped over."""

    stream: str
    entry_id: str
    reason: str
    data: bytes


class Clash(NamedTuple):
    """Two processes report as one worker."""

    worker: str


@dataclass(slots=True)
class Inbox:
    """One worker's stream. `heard_mono`: when something last came out of it."""

    worker: str
    key: bytes
    cursor: bytes = FIRST
    boot: str = ""
    boot_at_ms: int = 0
    retired: list[str] = field(default_factory=list[str])
    clash_at_ms: int = 0
    heard_mono: float = 0.0
    left_mono: float = 0.0  # 0.0: it is here


def entry_message(flat: list[bytes] | None) -> bytes:
    """The message in an entry: the value of the field `m`, or of the first one there is."""
    if not flat:
        return b""
    for at in range(0, len(flat) - 1, 2):
        if flat[at] == _FIELD:
            return flat[at + 1]
    return flat[1] if len(flat) > 1 else b""


def id_ms(entry_id: bytes) -> int:
    """The time in an entry's id (ms). It is Redis's own as long as the writer let Redis name the entry."""
    return int(entry_id.partition(b"-")[0])


def id_order(entry_id: bytes) -> tuple[int, int]:
    """Ids in the order of their stream."""
    at, _, number = entry_id.partition(b"-")
    return int(at), int(number or 0)


def cursor_of(saved: str) -> bytes:
    """A cursor that was saved; the stream's start for what is none (a state that somebody wrote by hand)."""
    return saved.encode() if _ID.match(saved) else FIRST


class Inboxes:
    """All streams of reports that the leader follows. `cursors` is what is read next: stream → id."""

    def __init__(self, keys: Keys, counters: RuntimeCounters) -> None:
        self._keys = keys
        self._counters = counters
        self._by_key: dict[bytes, Inbox] = {}
        self._by_worker: dict[str, Inbox] = {}
        self.cursors: dict[bytes, bytes] = {}
        self.highest_epoch = 0

    def restore(self, marks: dict[str, InboxMark], mono_s: float) -> None:
        """Go on where the last leader stood."""
        for worker, mark in marks.items():
            if is_worker(worker):
                inbox = self._add(worker, mono_s)
                inbox.boot = mark.boot
                inbox.cursor = self.cursors[inbox.key] = cursor_of(mark.cursor)

    def marks(self) -> dict[str, InboxMark]:
        """How far each stream was read."""
        return {w: InboxMark(box.cursor.decode(), box.boot) for w, box in self._by_worker.items()}

    def sync(self, index: Iterable[str], mono_s: float) -> list[str]:
        """Follow every worker of the index; gives those that are new."""
        new: list[str] = []
        for worker in index:
            box = self._by_worker.get(worker)
            if box is None:
                self._add(worker, mono_s)
                new.append(worker)
            elif box.left_mono:
                box.left_mono, box.heard_mono = 0.0, mono_s
                self.cursors[box.key] = box.cursor
                new.append(worker)
        return new

    def _add(self, worker: str, mono_s: float) -> Inbox:
        box = Inbox(worker, self._keys.inbox(worker).encode(), heard_mono=mono_s)
        self._by_worker[worker] = self._by_key[box.key] = box
        self.cursors[box.key] = box.cursor
        return box

    def silent(self, mono_s: float, for_s: float) -> list[Inbox]:
        """The streams that nothing came out of for so long."""
        return [b for b in self._by_worker.values() if not b.left_mono and mono_s - b.heard_mono >= for_s]

    def leave(self, worker: str, mono_s: float) -> bool:
        """The worker's record is gone: follow it no more. False when it had left already."""
        box = self._by_worker.get(worker)
        if box is None or box.left_mono:
            return False
        box.left_mono = mono_s
        self.cursors.pop(box.key, None)
        return True

    def prune(self, mono_s: float) -> None:
        """Forget those whose streams have run out by now."""
        for box in [b for b in self._by_worker.values() if b.left_mono]:
            if mono_s - box.left_mono > FORGET_AFTER_S:
                del self._by_worker[box.worker], self._by_key[box.key]

    def rewind(self, box: Inbox) -> None:
        """Read the stream from its start: its ids went back. Cumulative counters make reading twice harmless."""
        box.cursor = self.cursors[box.key] = FIRST

    @staticmethod
    def believable(redis_ms: int) -> int:
        """The highest epoch that a leader can have had."""
        return redis_ms + EPOCH_AHEAD_MS

    def heard(self) -> list[tuple[str, str]]:
        """(worker, boot) of all that are followed."""
        return [(worker, box.boot) for worker, box in self._by_worker.items() if not box.left_mono]

    @property
    def workers(self) -> list[str]:
        """Those that are followed now."""
        return [worker for worker, box in self._by_worker.items() if not box.left_mono]

    def take(
        self, key: bytes, entry_id: bytes, flat: list[bytes] | None, redis_ms: int, mono_s: float
    ) -> Input | Poison | Clash | None:
        """One entry as an input; `Poison` when it cannot be read; None when it must not count."""
        box = self._by_key[key]
        box.cursor = self.cursors[key] = entry_id
        box.heard_mono = mono_s
        self._counters.entries_read += 1
        data = entry_message(flat)
        try:
            message = decode_worker(data)
        except WireError as exc:
            return self._poison(box, entry_id, exc.reason, data)
        if message.worker != box.worker:
            return self._poison(box, entry_id, "wrong_worker", data)
        if isinstance(message, Report):
            return self._report(box, message, entry_id, redis_ms)
        if isinstance(message, ProbeResult):
            return ProbeEnded(message)
        # A goodbye of a process that was replaced must not take its successor along.
        if box.boot and message.boot != box.boot:
            return None
        return WorkerLeft(box.worker, message.boot)

    def _poison(self, box: Inbox, entry_id: bytes, reason: str, data: bytes) -> Poison:
        self._counters.unreadable[reason] += 1
        return Poison(f"in:{box.worker}", entry_id.decode(), reason, data[:DEAD_BYTES])

    def _report(self, box: Inbox, report: Report, entry_id: bytes, redis_ms: int) -> Input | Clash | None:
        if report.boot != box.boot:
            if report.boot in box.retired:
                self._counters.worker_id_clashes += 1
                return self._clash(box, redis_ms)
            if box.boot:
                box.retired = [*box.retired[1 - _MAX_RETIRED :], box.boot]
            box.boot, box.boot_at_ms = report.boot, redis_ms
        if self.highest_epoch < report.epoch <= self.believable(redis_ms):
            self.highest_epoch = report.epoch
        return Reported(report, report.age_ms + max(0, redis_ms - id_ms(entry_id)))

    def _clash(self, box: Inbox, redis_ms: int) -> Clash | None:
        if redis_ms - box.boot_at_ms < CLASH_AFTER_MS or redis_ms - box.clash_at_ms < CLASH_SAID_EVERY_MS:
            return None
        box.clash_at_ms = redis_ms
        return Clash(box.worker)
