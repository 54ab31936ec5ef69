"""Writes of a leader. Each carries the fence; `Fenced` or `Emptied` says that it was not ours to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from supervisor.store.scripts import Arg, script
from supervisor.wire.codec import MAX_BYTES, encode
from supervisor.wire.keys import BY_NAME, FIELD
from supervisor.wire.messages import Snapshot, Wake

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.store.lease import Fence
    from supervisor.wire.keys import Keys

HEAD_FIELD = "_"
KEPT_NAMES = ("override", "policy", "limits", "tokens")
# Up to this length the bound is kept exactly; above it whole nodes are trimmed, which costs nothing.
_EXACT_UP_TO = 1_000


class Fenced(Exception):
    """Another replica leads with a higher epoch: stop at once, nothing was written."""


class Emptied(Exception):
    """The leader's key is gone, so Redis was emptied: take a new epoch and refill it; nothing was written."""


class Entry(NamedTuple):
    """One entry for a stream. `name` is its row in `KEYS`, `key` the stream itself.

    max_len: a bound below the row's own (None: the row's).
    """

    name: str
    key: str
    fields: Mapping[str, bytes | str]
    max_len: int | None = None


def entry(keys: Keys, name: str, message: bytes) -> Entry:
    """An entry for a stream without parts in its name."""
    return Entry(name, keys(name), {FIELD: message})


def _check(answer: object) -> None:
    if answer == 1:
        return
    _refuse(answer)


def _refuse(answer: object) -> NoReturn:
    if answer == 0:
        raise Fenced
    raise Emptied


def wakes(epoch: int, revision: int, snapshots: Sequence[Snapshot], removed: Sequence[str]) -> list[bytes]:
    """The wake-ups of one revision: usually one; several when one would be too large to be read."""
    whole = encode(Wake(epoch, revision, tuple(snapshots), tuple(removed)))
    if len(whole) <= MAX_BYTES or len(snapshots) + len(removed) <= 1:
        return [whole]
    if not snapshots:
        half = len(removed) // 2
        return wakes(epoch, revision, (), removed[:half]) + wakes(epoch, revision, (), removed[half:])
    half = (len(snapshots) + 1) // 2
    first = wakes(epoch, revision, snapshots[:half], removed)
    return first + (wakes(epoch, revision, snapshots[half:], ()) if snapshots[half:] else [])


async def publish(
    client: redis.asyncio.Redis,
    keys: Keys,
    fence: Fence,
    *,
    revision: int,
    snapshots: Sequence[Snapshot],
    removed: Sequence[str],
    state: bytes,
) -> None:
    """State, snapshots, removals and revision in one step, and the wake-ups with the snapshots in them."""
    head = encode(Wake(fence.epoch, revision))
    args: list[Arg] = [fence.token, fence.epoch, revision, head, state, _ttl("state"), keys("wake")]
    args.append(len(snapshots))
    for snapshot in snapshots:
        args += (snapshot.target, encode(snapshot))
    args += (len(removed), *removed)
    out = wakes(fence.epoch, revision, snapshots, removed)
    args += (len(out), *out)
    _check(await script("publish")(client, [keys("leader"), keys("strategy"), keys("state")], args))


async def save(client: redis.asyncio.Redis, keys: Keys, fence: Fence, values: Mapping[str, bytes]) -> None:
    """Write `state`, `view`: values by the names of their keys, each with its row's TTL."""
    args: list[Arg] = [fence.token, fence.epoch]
    for name, value in values.items():
        args += (_ttl(name), value)
    _check(await script("save")(client, [keys("leader"), *(keys(name) for name in values)], args))


async def append(client: redis.asyncio.Redis, keys: Keys, fence: Fence, entries: Sequence[Entry]) -> None:
    """Append entries to their streams, in order, within each stream's bound."""
    streams = list(dict.fromkeys(item.key for item in entries))
    numbers = {key: number for number, key in enumerate(streams, 2)}
    args: list[Arg] = [fence.token, fence.epoch]
    for item in entries:
        spec = BY_NAME[item.name]
        limit = min(spec.max_len or 1, item.max_len or spec.max_len or 1)
        args += (numbers[item.key], int(limit <= _EXACT_UP_TO), limit, spec.ttl_s or 0, len(item.fields))
        for name, value in item.fields.items():
            args += (name, value)
    _check(await script("append")(client, [keys("leader"), *streams], args))


async def put_fields(
    client: redis.asyncio.Redis,
    keys: Keys,
    fence: Fence,
    name: str,
    hashes: Mapping[str, Mapping[str, bytes]],
) -> None:
    """Set fields of several hashes of one row (`history:<target>`, `checks`): full key → field → value."""
    args: list[Arg] = [fence.token, fence.epoch, _ttl(name)]
    for fields in hashes.values():
        args.append(len(fields))
        for field, value in fields.items():
            args += (field, value)
    _check(await script("fields")(client, [keys("leader"), *hashes], args))


async def keep(
    client: redis.asyncio.Redis,
    keys: Keys,
    fence: Fence,
    *,
    name: str,
    mark: str,
    field: str,
    record: bytes | None,
    history: bytes,
) -> None:
    """One change of what operators set. `name`: a hash of `KEPT_NAMES`. `record` None removes it."""
    log = f"{name}:history"
    where = [keys("leader"), keys(name), keys(log)]
    limit = BY_NAME[log].max_len or 1
    args: list[Arg] = [fence.token, fence.epoch, mark, field, record or b"", history, limit]
    _check(await script("keep")(client, where, args))


async def refill(
    client: redis.asyncio.Redis,
    keys: Keys,
    fence: Fence,
    *,
    mark: str,
    kept: Mapping[str, Mapping[str, bytes]],
) -> None:
    """Put back all that operators set: hash name → field → record. What is not in `kept` is removed."""
    args: list[Arg] = [fence.token, fence.epoch, mark]
    for name in KEPT_NAMES:
        fields = kept.get(name, {})
        args.append(len(fields))
        for field, value in fields.items():
            args += (field, value)
    where = [keys("leader"), *(keys(name) for name in KEPT_NAMES)]
    _check(await script("refill")(client, where, args))


async def forget_workers(client: redis.asyncio.Redis, keys: Keys, workers: Sequence[str]) -> list[str]:
    """Of these workers, those whose record has run out; they are taken out of the index."""
    if not workers:
        return []
    where = [keys("workers"), *(keys.worker(worker) for worker in workers)]
    raw = cast("list[bytes]", await script("forget")(client, where, list(workers)))
    return [name.decode() for name in raw]


async def reply(client: redis.asyncio.Redis, keys: Keys, command_id: str, message: bytes) -> None:
    """Answer a command. Not fenced: it says what was done, by whoever did it."""
    key = keys.reply(command_id)
    pipe = cast("Any", client).pipeline(transaction=True)
    pipe.delete(key)
    pipe.lpush(key, message)
    pipe.expire(key, _ttl("reply:<command>"))
    await pipe.execute()


def _ttl(name: str) -> int:
    ttl_s = BY_NAME[name].ttl_s
    if ttl_s is None:
        raise KeyError(f"{name} has no TTL")
    return ttl_s
