"""One reader of `events` and `faults` per process, and a bounded buffer per client.

Rules: however many clients there are, Redis is read once; a client whose buffer is full is dropped, never
waited for, and comes back with Last-Event-ID, so it loses nothing. An id is `<events id>_<faults id>`: where
both streams were read up to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import redis.exceptions
import structlog

from supervisor.api.records import first_message, id_order, is_stream_id
from supervisor.api.stream.format import as_data
from supervisor.runtime.tasks import end
from supervisor.wire.messages import Event, FaultEvent

if TYPE_CHECKING:
    from supervisor.runtime.context import SupervisorContext

log = structlog.stdlib.get_logger(__name__)

MAX_CLIENTS = 200
MAX_BUFFERED = 1_000
BLOCK_MS = 2_000
CHUNK = 500
_RETRY_S = (0.2, 0.5, 1.0, 2.0)
_START = "0-0"


class Cursor(NamedTuple):
    """Where both streams were read up to."""

    events: str = _START
    faults: str = _START

    def __str__(self) -> str:
        return f"{self.events}_{self.faults}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """A `Last-Event-ID`, or None when it is not one of ours."""
        events, _, faults = text.partition("_")
        return cls(events, faults) if is_stream_id(events) and is_stream_id(faults) else None


class Message(NamedTuple):
    """One server-sent event: where it stands, its name, and its data as JSON."""

    cursor: Cursor
    kind: str
    data: bytes


class Client:
    """One listener's buffer. `dropped`: it was too slow, or the process ends; nothing more will come."""

    def __init__(self) -> None:
        self._buffer: deque[Message] = deque()
        self._news = asyncio.Event()
        self.dropped = False
        self.position = Cursor()

    def offer(self, message: Message) -> bool:
        """Put a message in; False when the buffer is full, which drops the client."""
        if len(self._buffer) >= MAX_BUFFERED:
            self.drop()
            return False
        self._buffer.append(message)
        self._news.set()
        return True

    def drop(self) -> None:
        """End this client's stream."""
        self.dropped = True
        self._buffer.clear()
        self._news.set()

    async def take(self, timeout_s: float) -> list[Message]:
        """What has come in, waiting up to `timeout_s` for something; empty when nothing did or it was dropped."""
        if not self._buffer and not self.dropped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
        self._news.clear()
        found = list(self._buffer)
        self._buffer.clear()
        return found


class Hub:
    """The process's reader and its clients."""

    def __init__(self, context: SupervisorContext) -> None:
        self._context = context
        self._redis = cast("Any", context.redis)
        self._blocking = cast("Any", context.redis_blocking)
        self._keys = {"events": context.keys("events"), "faults": context.keys("faults")}
        self._clients: set[Client] = set()
        self._reader: asyncio.Task[None] | None = None
        self._cursor: Cursor | None = None
        self._closed = False

    @property
    def clients(self) -> int:
        """How many are listening."""
        return len(self._clients)

    async def join(self) -> Client | None:
        """A new client, positioned at now; None when there are too many or the process ends."""
        if self._closed or len(self._clients) >= MAX_CLIENTS:
            return None
        if self._cursor is None:
            ends = Cursor(await self._last_id("events"), await self._last_id("faults"))
            self._cursor = self._cursor or ends
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="sse-reader")
        client = Client()
        client.position = self._cursor
        self._clients.add(client)
        self._context.counters.sse_clients = len(self._clients)
        return client

    def leave(self, client: Client) -> None:
        """The client is gone; the reader stops with the last one."""
        self._clients.discard(client)
        self._context.counters.sse_clients = len(self._clients)
        if not self._clients and self._reader is not None:
            self._reader.cancel()
            self._reader = None
            self._cursor = None

    async def close(self) -> None:
        """End every stream: the process stops."""
        self._closed = True
        for client in self._clients:
            client.drop()
        reader, self._reader = self._reader, None
        if reader is not None:
            await end(reader)

    async def _last_id(self, name: str) -> str:
        newest = await self._redis.xrevrange(self._keys[name], count=1)
        return cast("bytes", newest[0][0]).decode() if newest else _START

    def _broadcast(self, message: Message) -> None:
        for client in self._clients:
            if not client.dropped and not client.offer(message):
                self._context.counters.sse_dropped += 1
                log.info("dropped a slow listener", action="sse.dropped", clients=len(self._clients))

    async def _read(self) -> None:
        failures = 0
        # A cancellation can get lost in redis-py (see `end`): a reader that was replaced ends by itself.
        while self._is_reader():
            try:
                await self._read_once()
                failures = 0
            except (redis.exceptions.RedisError, OSError, TimeoutError) as exc:
                if failures == 0:
                    log.warning(
                        "the stream cannot be read", action="sse.redis_down", error=type(exc).__name__
                    )
                await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _read_once(self) -> None:
        cursor = self._cursor or Cursor()
        streams = {self._keys["events"]: cursor.events, self._keys["faults"]: cursor.faults}
        raw = await self._blocking.xread(streams, count=CHUNK, block=BLOCK_MS)
        answer = cast("dict[bytes, Any] | list[Any]", raw or [])
        if not self._is_reader():
            return
        if not answer:
            await self._notice_rewind(cursor)
            return
        found = {self._name_of(key): _flat(entries) for key, entries in _items(answer)}
        for message in merge(cursor, found.get("events", []), found.get("faults", [])):
            self._cursor = message.cursor
            if message.kind:
                self._broadcast(message)

    def _is_reader(self) -> bool:
        return self._reader is asyncio.current_task()

    def _name_of(self, key: bytes) -> str:
        return "faults" if key.decode() == self._keys["faults"] else "events"

    async def _notice_rewind(self, cursor: Cursor) -> None:
        # After a failover to a replica that was behind, ids may begin before the cursor: nothing would come.
        ends = Cursor(await self._last_id("events"), await self._last_id("faults"))
        if id_order(ends.events) < id_order(cursor.events) or id_order(ends.faults) < id_order(cursor.faults):
            self._cursor = ends
            self._broadcast(gap(ends, "the history in Redis begins anew"))

    async def missed(self, since: Cursor, until: Cursor) -> tuple[list[Message], bool, bool]:
        """What came after `since` and not after `until`, oldest first.

        Gives a bounded chunk, whether there is more, and whether something in between is no longer kept.
        """
        lost = await self._trimmed("events", since.events) or await self._trimmed("faults", since.faults)
        events = await self._range("events", since.events, until.events)
        faults = await self._range("faults", since.faults, until.faults)
        more = len(events) == CHUNK or len(faults) == CHUNK
        if more:
            # What lies beyond a full chunk is not known yet: go no further in the other stream either.
            edge = min(id_order(entries[-1][0]) for entries in (events, faults) if len(entries) == CHUNK)
            events = [entry for entry in events if id_order(entry[0]) <= edge]
            faults = [entry for entry in faults if id_order(entry[0]) <= edge]
        return list(merge(since, events, faults)), more, lost

    async def _range(self, name: str, after: str, until: str) -> list[tuple[str, dict[bytes, bytes]]]:
        if id_order(until) <= id_order(after):
            return []
        return _flat(await self._redis.xrange(self._keys[name], f"({after}", until, count=CHUNK))

    async def _trimmed(self, name: str, after: str) -> bool:
        if after == _START:
            return False
        oldest = await self._redis.xrange(self._keys[name], count=1)
        return bool(oldest) and id_order(cast("bytes", oldest[0][0]).decode()) > id_order(after)


def gap(cursor: Cursor, reason: str) -> Message:
    """Tells a client that it has to read the state anew."""
    return Message(cursor, "gap", msgspec.json.encode({"kind": "gap", "reason": reason}))


def _items(answer: Any) -> list[tuple[bytes, Any]]:
    # RESP3 answers a map, RESP2 pairs.
    if isinstance(answer, dict):
        return list(cast("dict[bytes, Any]", answer).items())
    return [(pair[0], pair[1]) for pair in answer]


def _flat(entries: Any) -> list[tuple[str, dict[bytes, bytes]]]:
    # With RESP3, redis-py wraps the entries of each stream of XREAD in one more list.
    while (
        entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], (list, tuple))
    ):
        entries = entries[0]
    return [(entry[0].decode(), entry[1] or {}) for entry in entries]


def merge(
    cursor: Cursor, events: list[tuple[str, dict[bytes, bytes]]], faults: list[tuple[str, dict[bytes, bytes]]]
) -> list[Message]:
    """Both streams' entries as messages in the order of their ids; one that cannot be read has no kind."""
    both = [(id_order(i), "events", i, f) for i, f in events] + [
        (id_order(i), "faults", i, f) for i, f in faults
    ]
    messages: list[Message] = []
    for _, name, entry_id, fields in sorted(both, key=lambda entry: (entry[0], entry[1])):
        cursor = cursor._replace(**{name: entry_id})
        found = first_message(fields, Event if name == "events" else FaultEvent)
        kind, data = as_data(entry_id, found) if found is not None else ("", b"")
        messages.append(Message(cursor, kind, data))
    return messages
