"""The lease and the fence on a real Redis: one leader at a time, and whoever lost it writes nothing more."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis.asyncio

from supervisor.store import lease as leases
from supervisor.store import reads, writes
from supervisor.store.lease import Fence, Lease
from supervisor.wire.codec import MAX_BYTES, decode, encode
from supervisor.wire.keys import Keys
from supervisor.wire.messages import Snapshot, Wake
from supervisor.wire.vocabulary import State
from tests.support.waiting import wait_until

TTL_MS = 60_000  # longer than any test


async def take(client: redis.asyncio.Redis, keys: Keys, token: str, **more: Any) -> Lease:
    return await leases.acquire(client, keys, token=token, owner=f"replica-{token}", ttl_ms=TTL_MS, **more)


async def test_one_holder_at_a_time_and_epochs_rise(redis_client: redis.asyncio.Redis, fleet: str) -> None:
    keys = Keys(fleet)
    first = await take(redis_client, keys, "a")
    assert first.taken
    assert first.missing
    assert first.epoch >= first.now_ms
    second = await take(redis_client, keys, "b")
    assert not second.taken
    assert second.owner == "replica-a"
    assert 0 < second.left_ms <= TTL_MS
    # From here on it is a short one.
    assert (await leases.renew(redis_client, keys, Fence("a", first.epoch), 400)).held

    won: list[Lease] = []

    async def winning() -> bool:
        won.append(await take(redis_client, keys, "b"))
        return won[-1].taken

    await wait_until(winning, "the lease runs out")
    third = won[-1]
    assert third.epoch > first.epoch
    gone = await leases.renew(redis_client, keys, Fence("a", first.epoch), TTL_MS)
    assert not gone.held
    assert not gone.gone
    assert not await leases.release(redis_client, keys, Fence("a", first.epoch))
    assert await leases.release(redis_client, keys, Fence("b", third.epoch))
    assert (await take(redis_client, keys, "a")).taken


async def test_an_epoch_is_above_what_workers_report_and_above_time(
    redis_client: redis.asyncio.Redis, fleet: str
) -> None:
    keys = Keys(fleet)
    now = await reads.now_ms(redis_client)
    high = now + 10_000_000
    assert (await take(redis_client, keys, "a", floor=high)).epoch == high
    # The same process may take it again, e.g. after Redis was emptied, and its epoch rises.
    assert (await take(redis_client, keys, "a")).epoch == high + 1


async def test_a_lease_from_a_clock_that_went_back_does_not_hold_for_hours(
    redis_client: redis.asyncio.Redis, fleet: str
) -> None:
    keys = Keys(fleet)
    before = await take(redis_client, keys, "a")
    await cast("Any", redis_client).hset(keys("leader"), "until_ms", before.now_ms + 3_600_000)
    assert (await take(redis_client, keys, "b")).taken


async def test_a_missing_key_is_left_to_the_old_leader_when_asked_to(
    redis_client: redis.asyncio.Redis, fleet: str
) -> None:
    keys = Keys(fleet)
    lease = await take(redis_client, keys, "a", take_missing=False)
    assert not lease.taken
    assert lease.missing
    assert not await cast("Any", redis_client).exists(keys("leader"))


@pytest.mark.parametrize("emptied", [False, True])
async def test_no_write_passes_the_fence(
    redis_client: redis.asyncio.Redis, fleet: str, emptied: bool
) -> None:
    keys = Keys(fleet)
    api = cast("Any", redis_client)
    old = await take(redis_client, keys, "a")
    await leases.release(redis_client, keys, Fence("a", old.epoch))
    new = await take(redis_client, keys, "b")
    assert new.taken
    if emptied:
        await api.delete(keys("leader"))
    fence = Fence("a", old.epoch)
    refused = writes.Emptied if emptied else writes.Fenced
    snapshot = Snapshot("llm:a:b", 1, 1, State.HEALTHY)
    with pytest.raises(refused):
        await writes.publish(
            redis_client, keys, fence, revision=1, snapshots=[snapshot], removed=[], state=b"x"
        )
    with pytest.raises(refused):
        await writes.save(redis_client, keys, fence, {"state": b"x", "view": b"x"})
    with pytest.raises(refused):
        await writes.append(redis_client, keys, fence, [writes.entry(keys, "events", b"x")])
    with pytest.raises(refused):
        await writes.put_fields(
            redis_client, keys, fence, "history:<target>", {keys.history("llm:a:b"): {"s1": b"x"}}
        )
    with pytest.raises(refused):
        await writes.keep(
            redis_client, keys, fence, name="override", mark="1-1", field="f", record=b"x", history=b"x"
        )
    with pytest.raises(refused):
        await writes.refill(redis_client, keys, fence, mark="1-1", kept={"override": {"f": b"x"}})
    left = {key.decode().removeprefix(keys.prefix) for key in await api.keys(keys.prefix + "*")}
    assert left == (set() if emptied else {"leader"})


async def test_a_publication_is_whole_and_wakes(redis_client: redis.asyncio.Redis, fleet: str) -> None:
    keys = Keys(fleet)
    api = cast("Any", redis_client)
    lease = await take(redis_client, keys, "a")
    fence = Fence("a", lease.epoch)
    async with api.pubsub() as pubsub:
        await pubsub.subscribe(keys("wake"))
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        one, two = (Snapshot(f"llm:x:{n}", 1, lease.epoch, State.HEALTHY) for n in "12")
        await writes.publish(
            redis_client, keys, fence, revision=1, snapshots=[one, two], removed=[], state=b"s1"
        )
        woken = decode((await pubsub.get_message(timeout=5))["data"], Wake)
        assert woken == Wake(lease.epoch, 1, (one, two))
        await writes.publish(
            redis_client, keys, fence, revision=2, snapshots=[], removed=[two.target], state=b"s2"
        )
        woken = decode((await pubsub.get_message(timeout=5))["data"], Wake)
        assert woken.removed == (two.target,)
    strategy = await api.hgetall(keys("strategy"))
    assert set(strategy) == {b"_", one.target.encode()}
    assert await reads.strategy_head(redis_client, keys) == Wake(lease.epoch, 2)
    assert await reads.state(redis_client, keys) == b"s2"
    record = await leases.read_leader(redis_client, keys)
    assert record is not None
    assert record.revision == 2


def test_a_wake_too_large_to_be_read_goes_in_pieces() -> None:
    snapshots = [
        Snapshot(f"llm:provider:{'m' * 150}{n}", 7, 9, State.UNHEALTHY, reason="ü" * 300) for n in range(256)
    ]
    removed = [f"tts:provider:{n}" for n in range(3)]
    pieces = writes.wakes(9, 7, snapshots, removed)
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= MAX_BYTES
    read = [decode(piece, Wake) for piece in pieces]
    assert [s for wake in read for s in wake.snapshots] == snapshots
    assert [t for wake in read for t in wake.removed] == removed
    assert {(wake.epoch, wake.revision) for wake in read} == {(9, 7)}
    assert writes.wakes(9, 7, snapshots[:2], []) == [encode(Wake(9, 7, tuple(snapshots[:2])))]


async def test_streams_keep_their_bounds(redis_client: redis.asyncio.Redis, fleet: str) -> None:
    keys = Keys(fleet)
    lease = await take(redis_client, keys, "a")
    fence = Fence("a", lease.epoch)
    for _ in range(6):
        batch = [writes.entry(keys, "dead", b"x") for _ in range(200)]
        await writes.append(redis_client, keys, fence, batch)
    assert await cast("Any", redis_client).xlen(keys("dead")) == 1_000
    for n in range(120):
        await writes.keep(
            redis_client, keys, fence, name="override", mark=f"1-{n}", field="f", record=b"x", history=b"x"
        )
    assert await cast("Any", redis_client).xlen(keys("override:history")) == 100
