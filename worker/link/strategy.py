"""The strategy as this container has it: what was read and applied, what was refused and why.

Rule: only what is newer in (epoch, revision) and makes sense is applied; the rest leaves the old in force and
is said in the next report. No I/O, no clock; bytes come in as they were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from supervisor.wire.codec import decode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import BY_NAME
from supervisor.wire.messages import Snapshot, Wake
from supervisor.wire.targets import TargetError, parse_target

HEAD_FIELD: Final = b"_"
WAKE_SUBJECT: Final = "strategy:wake"  # stands in `refused` for what names no target
_MIN_SUBJECT, _MAX_SUBJECT = 5, 200
_MAX_REFUSED: Final = 32
_MAX_SNAPSHOTS: Final = BY_NAME["strategy"].max_len or 257
_MAX_AHEAD_MS: Final = 86_400_000  # an epoch is a Redis TIME: one of tomorrow would deafen us for a day
_MAX_HOLD_OFF_MS: Final = 3_600_000  # the longest the rules know is 600 s


class Applied(StrEnum):
    """What became of something read."""

    CHANGED = "changed"
    SAME = "same"  # nothing new in it; it still says that the strategy holds
    OLDER = "older"  # a leader behind the one we follow: ignored
    EMPTY = "empty"  # there is no strategy in Redis
    MISSED = "missed"  # applied, but something before it was not seen: read all
    REFUSED = "refused"  # not readable: read all


@dataclass(frozen=True, slots=True)
class Head:
    """Where a strategy stands; compared as (epoch, revision)."""

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"

    def __lt__(self, other: Head) -> bool:
        return (self.epoch, self.revision) < (other.epoch, other.revision)


def fault_of(snapshot: Snapshot, now_ms: int | None) -> str:
    """Why a snapshot makes no sense, or "". `now_ms`: Redis TIME, None while unknown."""
    try:
        parse_target(snapshot.target)
    except TargetError as exc:
        return str(exc)
    if not 0.0 <= snapshot.admit <= 1.0:
        return "admit is not within 0 and 1"
    zero = [
        name
        for name in ("first_output_ms", "stall_ms", "overdue_ms", "ttl_ms")
        if not getattr(snapshot, name)
    ]
    if zero:
        return f"{zero[0]} is 0"
    if snapshot.backoff_cap_ms < snapshot.backoff_base_ms:
        return "backoff_cap_ms is below backoff_base_ms"
    if now_ms is not None and snapshot.hold_off_until_at_ms > now_ms + _MAX_HOLD_OFF_MS:
        return "hold_off_until_at_ms is more than an hour ahead"
    return ""


class StrategyBook:
    """snapshots: by target, as applied. head: the highest (epoch, revision) applied.

    refused: subject → reason, for the next report; a subject leaves it when something good is applied to it.
    """

    __slots__ = ("head", "refused", "snapshots")

    def __init__(self) -> None:
        self.snapshots: dict[str, Snapshot] = {}
        self.head = Head(0, 0)
        self.refused: dict[str, str] = {}

    def wake(self, data: bytes, now_ms: int | None) -> Applied:
        """Apply what was published. Whatever the bytes, nothing is raised."""
        wake = self._readable(data, now_ms, "wake-up")
        if wake is None:
            return Applied.REFUSED
        head = Head(wake.epoch, wake.revision)
        if head < self.head:
            return Applied.OLDER
        # A strategy too long for one message comes as several wake-ups with the same head.
        another_part = head == self.head
        followed = head.epoch == self.head.epoch and head.revision == self.head.revision + 1
        changed = False
        for target in wake.removed:
            changed = self.snapshots.pop(target, None) is not None or changed
            self.refused.pop(target, None)
        for snapshot in wake.snapshots:
            changed = self._take(snapshot, now_ms) or changed
        self.head = head
        self.refused.pop(WAKE_SUBJECT, None)
        if another_part:
            return Applied.CHANGED if changed else Applied.SAME
        return Applied.CHANGED if followed else Applied.MISSED

    def head_read(self, data: bytes | None, now_ms: int | None) -> Applied:
        """Compare with the head that stands in Redis: CHANGED means that all must be read."""
        if data is None:
            return Applied.EMPTY
        wake = self._readable(data, now_ms, "head of the strategy")
        if wake is None:
            return Applied.REFUSED
        head = Head(wake.epoch, wake.revision)
        if head < self.head:
            return Applied.OLDER
        return Applied.SAME if head == self.head else Applied.CHANGED

    def read_all(self, fields: Mapping[bytes, bytes], now_ms: int | None) -> Applied:
        """Apply the whole hash `strategy`: target id → snapshot, and `_` → head."""
        compared = self.head_read(fields.get(HEAD_FIELD), now_ms)
        if compared in (Applied.EMPTY, Applied.REFUSED, Applied.OLDER):
            return compared
        changed = False
        seen: set[str] = set()
        for name, data in fields.items():
            if name == HEAD_FIELD:
                continue
            subject = name.decode("utf-8", "replace")
            if not _MIN_SUBJECT <= len(subject) <= _MAX_SUBJECT:  # such a name would spoil the whole report
                subject = WAKE_SUBJECT
            seen.add(subject)
            try:
                snapshot = decode(data, Snapshot)
            except WireError as exc:
                self._refuse(subject, f"{exc.reason} snapshot")
                continue
            if snapshot.target != subject:
                self._refuse(subject, "the snapshot is about another target")
                continue
            changed = self._take(snapshot, now_ms) or changed
        for gone in self.snapshots.keys() - seen:
            del self.snapshots[gone]
            changed = True
        self.refused = {k: v for k, v in self.refused.items() if k in seen}
        if compared is Applied.CHANGED:
            head = decode(fields[HEAD_FIELD], Wake)
            self.head = Head(head.epoch, head.revision)
            return Applied.CHANGED
        return Applied.CHANGED if changed else Applied.SAME

    def _readable(self, data: bytes, now_ms: int | None, what: str) -> Wake | None:
        """The wake-up (or head) in some bytes; None, and said in the next report, when it makes no sense."""
        try:
            wake = decode(data, Wake)
        except WireError as exc:
            self._refuse(WAKE_SUBJECT, f"{exc.reason} {what}")
            return None
        if now_ms is not None and wake.epoch > now_ms + _MAX_AHEAD_MS:
            self._refuse(WAKE_SUBJECT, "epoch is more than a day ahead of Redis TIME")
            return None
        return wake

    def _take(self, snapshot: Snapshot, now_ms: int | None) -> bool:
        known = self.snapshots.get(snapshot.target)
        if known is not None and (snapshot.epoch, snapshot.revision) <= (known.epoch, known.revision):
            return False
        if reason := fault_of(snapshot, now_ms):
            self._refuse(snapshot.target, reason)
            return False
        if known is None and len(self.snapshots) >= _MAX_SNAPSHOTS:
            self._refuse(snapshot.target, "more targets than a fleet may have")
            return False
        self.snapshots[snapshot.target] = snapshot
        self.refused.pop(snapshot.target, None)
        return True

    def _refuse(self, subject: str, reason: str) -> None:
        if subject in self.refused or len(self.refused) < _MAX_REFUSED:
            self.refused[subject] = reason[:300]
