"""What REST and pages read from Redis: thin async functions, nothing is decided or written here.

Rule: an entry that cannot be read is left out (the leader counts and keeps it); it never fails a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from supervisor.checks.record import CheckRecord
from supervisor.checks.record import decode as decode_check
from supervisor.wire.codec import decode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import is_worker
from supervisor.wire.messages import (
    Message,
    OverrideRecord,
    PolicyRecord,
    SessionInfo,
    TokenRecord,
    WorkerInfo,
)
from supervisor.wire.view import FleetView, decode_view

if TYPE_CHECKING:
    from supervisor.wire.keys import Keys

T = TypeVar("T", bound=Message)

_STREAM_ID = re.compile(r"\A\d{1,19}(?:-\d{1,19})?\Z")
MAX_INDEX = 4_000  # members of an index that are read at most in one request
DEAD_AT_ONCE = 100  # records asked for at least in one go: many may have run out


def is_stream_id(text: str) -> bool:
    """Whether a cursor is a stream id (`<ms>-<n>`)."""
    return bool(_STREAM_ID.match(text))


def id_order(entry_id: str) -> tuple[int, int]:
    """Stream ids as they sort."""
    at_ms, _, number = entry_id.partition("-")
    return int(at_ms), int(number or 0)


def first_message(fields: Mapping[bytes, bytes], kind: type[T]) -> T | None:
    """The message in a stream entry or a record's hash: each holds exactly one value that is a message."""
    for value in fields.values():
        try:
            return decode(value, kind)
        except WireError:
            continue
    return None


def _pairs(raw: object) -> Iterable[tuple[bytes, dict[bytes, bytes]]]:
    for entry_id, fields in cast("list[tuple[bytes, dict[bytes, bytes] | None]]", raw or []):
        if fields is not None:
            yield entry_id, fields


class Records:
    """Reads of one fleet's keys. Every method raises redis-py's errors and nothing else."""

    def __init__(self, redis: Any, keys: Keys) -> None:
        # redis-py types each answer as a union with an awaitable; this class is the edge where that ends.
        self._redis = redis
        self._keys = keys

    async def view(self) -> FleetView | None:
        """The leader's picture, or None when there is none (no leader for 10 s) or it cannot be read."""
        return decode_view(cast("bytes | None", await self._redis.get(self._keys("view"))))

    async def has_view(self) -> bool:
        """Whether there is a picture at all, without reading it."""
        return bool(await self._redis.exists(self._keys("view")))

    async def now_ms(self) -> int:
        """Redis TIME in milliseconds."""
        seconds, micros = cast("tuple[int, int]", await self._redis.time())
        return int(seconds) * 1000 + int(micros) // 1000

    async def worker(self, worker: str) -> WorkerInfo | None:
        """One worker's own record."""
        fields = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys.worker(worker)))
        return first_message(fields, WorkerInfo)

    async def workers(self) -> dict[str, WorkerInfo]:
        """Every worker whose record lives, by id."""
        return await self._index("workers", self._keys.worker, WorkerInfo)

    async def session(self, session: str) -> SessionInfo | None:
        """One live call's record."""
        fields = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys.session(session)))
        return first_message(fields, SessionInfo)

    async def sessions_page(self, cursor: str, limit: int) -> tuple[list[SessionInfo], str | None]:
        """Live calls in order of their ids, `limit` at most, beginning after the id `cursor`."""
        names = await self._members("sessions", MAX_INDEX * 25)
        after = [name for name in names if name > cursor]
        page: list[SessionInfo] = []
        at = 0
        # Members whose record is gone are stepped over, so a page may need a second look.
        while at < len(after) and len(page) < limit:
            chunk = after[at : at + max(limit - len(page), DEAD_AT_ONCE)]
            found = await self._many([(name, self._keys.session(name)) for name in chunk], SessionInfo)
            for name in chunk:
                if len(page) == limit:
                    break
                at += 1
                if name in found:
                    page.append(found[name])
        return page, (after[at - 1] if 0 < at < len(after) else None)

    async def _members(self, index: str, most: int) -> list[str]:
        raw = cast("list[bytes]", await self._redis.zrange(self._keys(index), 0, most - 1))
        # A name that cannot be part of a key is in no record.
        return sorted(name for name in (member.decode(errors="replace") for member in raw) if is_worker(name))

    async def _index(self, index: str, key_of: Any, kind: type[T]) -> dict[str, T]:
        names = await self._members(index, MAX_INDEX)
        return await self._many([(name, key_of(name)) for name in names], kind)

    async def _many(self, wanted: list[tuple[str, str]], kind: type[T]) -> dict[str, T]:
        if not wanted:
            return {}
        pipe = self._redis.pipeline(transaction=False)
        for _, key in wanted:
            pipe.hgetall(key)
        answers = cast("list[dict[bytes, bytes]]", await pipe.execute())
        found: dict[str, T] = {}
        for (name, _), fields in zip(wanted, answers, strict=True):
            message = first_message(fields, kind)
            if message is not None:
                found[name] = message
        return found

    async def stream_page(
        self, name: str, kind: type[T], limit: int, before: str = ""
    ) -> tuple[list[tuple[str, T]], str | None]:
        """A page of a stream, newest first, `limit` at most, older than the id `before`.

        Gives entries with their ids and the cursor of the next page (None: this was the last).
        """
        newest = f"({before}" if before else "+"
        raw = await self._redis.xrevrange(self._keys(name), newest, "-", count=limit + 1)
        entries = list(_pairs(raw))
        page = entries[:limit]
        following = page[-1][0].decode() if len(entries) > limit and page else None
        found: list[tuple[str, T]] = []
        for entry_id, fields in page:
            message = first_message(fields, kind)
            if message is not None:
                found.append((entry_id.decode(), message))
        return found, following

    async def stream_after(
        self, name: str, kind: type[T], after: str, count: int
    ) -> tuple[list[tuple[str, T]], str, int]:
        """Entries of a stream after the id `after` ("": from its start), oldest first.

        Gives those that can be read, the id of the last one ("" without any), and how many there were.
        """
        oldest = f"({after}" if after else "-"
        raw = list(_pairs(await self._redis.xrange(self._keys(name), oldest, "+", count=count)))
        found = [(entry_id.decode(), first_message(fields, kind)) for entry_id, fields in raw]
        readable = [(entry_id, message) for entry_id, message in found if message is not None]
        return readable, (found[-1][0] if found else ""), len(raw)

    async def stream_ends(self, name: str) -> tuple[str, str] | None:
        """The ids of a stream's first and last entry; None when it is empty."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.xrange(self._keys(name), "-", "+", count=1)
        pipe.xrevrange(self._keys(name), "+", "-", count=1)
        first, last = cast("list[list[tuple[bytes, object]]]", await pipe.execute())
        return (first[0][0].decode(), last[0][0].decode()) if first and last else None

    async def overrides(self) -> dict[str, OverrideRecord]:
        """Every override in force, by scope; what has run out by Redis TIME is left out."""
        raw = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys("override")))
        now = await self.now_ms() if raw else 0
        found: dict[str, OverrideRecord] = {}
        for value in raw.values():
            record = first_message({b"": value}, OverrideRecord)
            if record is not None and record.expires_at_ms > now:
                found[record.scope] = record
        return found

    async def override(self, scope: str) -> OverrideRecord | None:
        """The override of one scope (a target id, or `provider:<name>`), if it has not run out."""
        return (await self.overrides()).get(scope)

    async def policies(self) -> dict[str, PolicyRecord]:
        """Every policy that was set, by scope."""
        raw = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys("policy")))
        found = [first_message({b"": value}, PolicyRecord) for value in raw.values()]
        return {record.scope: record for record in found if record is not None}

    async def tokens(self) -> list[TokenRecord]:
        """Every token's record (digest and role, never the token)."""
        raw = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys("tokens")))
        found = [first_message({b"": value}, TokenRecord) for value in raw.values()]
        return sorted((record for record in found if record is not None), key=lambda record: record.id)

    async def dead_entries(self) -> int:
        """How many unreadable entries are kept."""
        return int(await self._redis.xlen(self._keys("dead")))

    async def checks(self) -> list[CheckRecord]:
        """What the last checks said, by provider and source."""
        raw = cast("dict[bytes, bytes]", await self._redis.hgetall(self._keys("checks")))
        found = [decode_check(value) for value in raw.values()]
        return sorted((record for record in found if record is not None), key=lambda record: record.field)
