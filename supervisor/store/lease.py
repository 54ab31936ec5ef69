"""The lease: who leads, with which epoch. Whoever lost it learns so from its next write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from supervisor.store.scripts import script

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.wire.keys import Keys


class Fence(NamedTuple):
    """What every write of a leader carries. `token` is this process's own, whatever the replica is called."""

    token: str
    epoch: int


class Lease(NamedTuple):
    """An answer to `acquire`.

    taken: it is ours now. epoch, revision: the newest known to Redis (ours, when taken).
    left_ms: how long the present holder still has. missing: Redis knew of no leader at all (new or emptied).
    kept: the mark of the newest change by operators that Redis knows ("" for none).
    """

    taken: bool
    epoch: int
    revision: int
    now_ms: int
    left_ms: int
    missing: bool
    owner: str
    kept: str


class Renewal(NamedTuple):
    """An answer to `renew`. gone: the leader's key is not there any more (Redis was emptied)."""

    held: bool
    gone: bool
    now_ms: int
    strategy_there: bool
    state_there: bool

    @property
    def whole(self) -> bool:
        """Whether what a leader has published is still there."""
        return self.strategy_there and self.state_there


class LeaderRecord(NamedTuple):
    """What the key `leader` says to anybody who asks."""

    owner: str
    epoch: int
    revision: int
    kept: str


def _int(raw: bytes | None) -> int:
    try:
        return int(raw or 0)
    except ValueError:  # somebody else's hand in the key; an epoch above it heals it
        return 0


async def acquire(
    client: redis.asyncio.Redis,
    keys: Keys,
    *,
    token: str,
    owner: str,
    ttl_ms: int,
    floor: int = 0,
    take_missing: bool = True,
) -> Lease:
    """Take the lease if it is free. `floor`: the lowest epoch that will do (highest reported by workers + 1)."""
    args = [token, owner, ttl_ms, floor, int(take_missing)]
    raw = cast("list[Any]", await script("acquire")(client, [keys("leader")], args))
    taken, epoch, revision, now, left, missing = (int(value) for value in raw[:6])
    return Lease(bool(taken), epoch, revision, now, left, bool(missing), raw[6].decode(), raw[7].decode())


async def renew(client: redis.asyncio.Redis, keys: Keys, fence: Fence, ttl_ms: int) -> Renewal:
    """Keep the lease for another `ttl_ms`; also when it had run out and nobody took it."""
    where = [keys("leader"), keys("strategy"), keys("state")]
    raw = cast("list[int]", await script("renew")(client, where, [fence.token, fence.epoch, ttl_ms]))
    return Renewal(raw[0] == 1, raw[0] == -1, raw[1], bool(raw[2]), bool(raw[3]))


async def release(client: redis.asyncio.Redis, keys: Keys, fence: Fence) -> bool:
    """Give the lease back at once."""
    return bool(await script("release")(client, [keys("leader")], [fence.token, fence.epoch]))


async def read_leader(client: redis.asyncio.Redis, keys: Keys) -> LeaderRecord | None:
    """Who leads, by what the key says; None when there is no such key."""
    names = ["owner", "epoch", "revision", "kept"]
    raw = cast("list[bytes | None]", await cast("Any", client).hmget(keys("leader"), names))
    if raw[1] is None:
        return None
    owner = (raw[0] or b"").decode(errors="replace")
    return LeaderRecord(owner, _int(raw[1]), _int(raw[2]), (raw[3] or b"").decode(errors="replace"))
