"""What operators set: overrides, policies, limits, tokens. One book, in memory, in Redis and on disk.

A mark (`epoch-version`) orders changes over leaders: a later leader's change is newer than any earlier one's,
so that a file or a Redis that stayed behind is never taken for the present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from supervisor.store.writes import KEPT_NAMES
from supervisor.wire.codec import decode
from supervisor.wire.errors import WireError
from supervisor.wire.messages import Message, OverrideRecord, PolicyRecord, TokenRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T", bound=Message)

_PREFIX: Final = b"\x01"


class Mark(NamedTuple):
    """Of two, the higher one is the newer. (0, 0): nothing was ever changed."""

    epoch: int = 0
    version: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}-{self.version}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """The mark in `leader`; whatever is none counts as the oldest."""
        epoch, _, version = text.partition("-")
        try:
            return cls(int(epoch), int(version))
        except ValueError:
            return cls()


class _File(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    version: int
    tables: dict[str, dict[str, bytes]]


class KeptBook:
    """hash name → field → encoded record, with the mark of the newest change."""

    def __init__(
        self, mark: Mark | None = None, tables: Mapping[str, Mapping[str, bytes]] | None = None
    ) -> None:
        self.mark = mark or Mark()
        self.tables = {name: dict((tables or {}).get(name, {})) for name in KEPT_NAMES}

    def changed(self, epoch: int, name: str, field: str, record: bytes | None) -> KeptBook:
        """A copy with one change and a higher mark. `record` None removes it."""
        mark = max(self.mark, Mark(epoch, 0))
        book = KeptBook(Mark(mark.epoch, mark.version + 1), self.tables)
        if record is None:
            book.tables[name].pop(field, None)
        else:
            book.tables[name][field] = record
        return book

    def record(self, name: str, field: str, kind: type[T]) -> T | None:
        """One record; None when there is none, or it cannot be read."""
        raw = self.tables[name].get(field)
        if raw is None:
            return None
        try:
            return decode(raw, kind)
        except WireError:
            return None

    def records(self, name: str, kind: type[T]) -> dict[str, T]:
        """All records of one hash that can be read."""
        found = {field: self.record(name, field, kind) for field in self.tables[name]}
        return {field: record for field, record in found.items() if record is not None}

    @property
    def overrides(self) -> dict[str, OverrideRecord]:
        return self.records("override", OverrideRecord)

    @property
    def policies(self) -> dict[str, PolicyRecord]:
        return self.records("policy", PolicyRecord)

    @property
    def tokens(self) -> dict[str, TokenRecord]:
        return self.records("tokens", TokenRecord)

    @property
    def empty(self) -> bool:
        return not any(self.tables.values())

    def encode(self) -> bytes:
        """As it is kept on disk."""
        return _PREFIX + msgspec.msgpack.encode(_File(*self.mark, self.tables))


def decode_book(raw: bytes | None) -> KeptBook | None:
    """What was kept on disk; None when there is nothing that this build can read."""
    if not raw or raw[:1] != _PREFIX:
        return None
    try:
        content = msgspec.msgpack.decode(memoryview(raw)[1:], type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return KeptBook(Mark(content.epoch, content.version), content.tables)
