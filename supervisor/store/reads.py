"""What a leader or standby reads, apart from the streams it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from supervisor.store.writes import HEAD_FIELD, KEPT_NAMES
from supervisor.wire.codec import decode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import BY_NAME, is_worker
from supervisor.wire.messages import Wake, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis.asyncio

    from supervisor.wire.keys import Keys

_MOST_WORKERS = BY_NAME["workers"].max_len or 4_000


class Edges(NamedTuple):
    """The ids at a stream's ends (None: no such stream), and whether one given entry is still in it."""

    first: bytes | None
    last: bytes | None
    kept: bool


async def now_ms(client: redis.asyncio.Redis) -> int:
    """Redis TIME in milliseconds."""
    seconds, micros = cast("tuple[int, int]", await cast("Any", client).time())
    return int(seconds) * 1000 + int(micros) // 1000


async def workers(client: redis.asyncio.Redis, keys: Keys) -> list[str]:
    """The index of workers; names that cannot be part of a key are left out."""
    raw = cast("list[bytes]", await cast("Any", client).zrange(keys("workers"), 0, _MOST_WORKERS - 1))
    names = (member.decode(errors="replace") for member in raw)
    return [name for name in names if is_worker(name)]


async def worker_records(
    client: redis.asyncio.Redis, keys: Keys, names: Iterable[str]
) -> dict[str, WorkerInfo]:
    """What the workers say of themselves, as far as it can be read."""
    wanted = list(names)
    if not wanted:
        return {}
    pipe = cast("Any", client).pipeline(transaction=False)
    for name in wanted:
        pipe.hvals(keys.worker(name))
    found: dict[str, WorkerInfo] = {}
    for name, values in zip(wanted, cast("list[list[bytes]]", await pipe.execute()), strict=True):
        for value in values:
            try:
                found[name] = decode(value, WorkerInfo)
            except WireError:
                continue
    return found


async def state(client: redis.asyncio.Redis, keys: Keys) -> bytes | None:
    """The engine's state as the last leader wrote it."""
    return cast("bytes | None", await cast("Any", client).get(keys("state")))


async def strategy_head(client: redis.asyncio.Redis, keys: Keys) -> Wake | None:
    """Epoch and revision of the strategy that is in Redis."""
    raw = cast("bytes | None", await cast("Any", client).hget(keys("strategy"), HEAD_FIELD))
    if raw is None:
        return None
    try:
        return decode(raw, Wake)
    except WireError:
        return None


async def strategy_targets(client: redis.asyncio.Redis, keys: Keys) -> list[str]:
    """The targets that the strategy in Redis has a snapshot of."""
    raw = cast("list[bytes]", await cast("Any", client).hkeys(keys("strategy")))
    return [name.decode(errors="replace") for name in raw if name != HEAD_FIELD.encode()]


async def kept(client: redis.asyncio.Redis, keys: Keys) -> dict[str, dict[str, bytes]]:
    """All that operators set: hash name → field → record."""
    pipe = cast("Any", client).pipeline(transaction=True)
    for name in KEPT_NAMES:
        pipe.hgetall(keys(name))
    answers = cast("list[dict[bytes, bytes]]", await pipe.execute())
    return {
        name: {field.decode(errors="replace"): value for field, value in answer.items()}
        for name, answer in zip(KEPT_NAMES, answers, strict=True)
    }


async def history_fields(
    client: redis.asyncio.Redis, wanted: Sequence[tuple[str, Sequence[str]]]
) -> list[list[bytes | None]]:
    """Fields of several hashes: (full key, fields) → values."""
    pipe = cast("Any", client).pipeline(transaction=False)
    for key, fields in wanted:
        pipe.hmget(key, fields)
    return cast("list[list[bytes | None]]", await pipe.execute())


async def edges(client: redis.asyncio.Redis, streams: Sequence[tuple[str, bytes]]) -> list[Edges]:
    """For each (stream, id): the ids at its ends, and whether the entry with that id is still there."""
    if not streams:
        return []
    pipe = cast("Any", client).pipeline(transaction=False)
    for key, entry_id in streams:
        pipe.xrange(key, "-", "+", count=1)
        pipe.xrevrange(key, "+", "-", count=1)
        pipe.xrange(key, entry_id, entry_id, count=1)
    answers = cast("list[list[tuple[bytes, Any]]]", await pipe.execute())
    found: list[Edges] = []
    for at in range(0, len(answers), 3):
        first, last, same = answers[at : at + 3]
        found.append(Edges(first[0][0] if first else None, last[0][0] if last else None, bool(same)))
    return found


async def no_streams(client: redis.asyncio.Redis, streams: Sequence[bytes]) -> list[bytes]:
    """Of these keys, those that hold something else than a stream."""
    pipe = cast("Any", client).pipeline(transaction=False)
    for key in streams:
        pipe.type(key)
    kinds = cast("list[bytes]", await pipe.execute())
    return [key for key, kind in zip(streams, kinds, strict=True) if kind not in {b"stream", b"none"}]


async def remove(client: redis.asyncio.Redis, key: bytes) -> None:
    """Delete a key that is of no use to anybody."""
    await cast("Any", client).delete(key)
