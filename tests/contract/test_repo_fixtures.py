"""The test suite's own tools must be able to fail."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis
import redis.asyncio

from supervisor.wire.keys import Keys
from tests.support.key_check import complaints
from tests.support.redis_server import RedisServer, sync_client
from tests.support.waiting import WaitTimeout, wait_until, wait_until_sync


async def test_wait_until_gives_the_first_truthy_value_of_plain_and_async_predicates() -> None:
    seen: list[int] = []

    def plain() -> int:
        seen.append(1)
        return len(seen) if len(seen) >= 3 else 0

    async def answered() -> str:
        return "yes"

    assert await wait_until(plain, "three looks") == 3
    assert await wait_until(answered, "an answer") == "yes"


async def test_wait_until_says_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(WaitTimeout, match=r"not within 0.02 s: the moon \(last seen: 0\)"):
        await wait_until(lambda: 0, "the moon", timeout=0.02)
    with pytest.raises(WaitTimeout, match="the moon"):
        wait_until_sync(lambda: None, "the moon", timeout=0.02)


async def test_keys_within_their_bounds_are_left_in_peace(
    redis_client: redis.asyncio.Redis, fleet: str
) -> None:
    keys = Keys(fleet)
    api = cast("Any", redis_client)
    await api.xadd(keys.inbox("w1"), {"r": b"1"}, maxlen=1_000)
    await api.expire(keys.inbox("w1"), 120)
    await api.hset(keys("strategy"), "t", b"1")
    await api.xadd(keys("faults"), {"f": b"1"})
    # The autouse fixture looks at them when this test ends.


P = "sv:v1:{f}:"


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["SET", f"{P}nonsense", "1"], "is in no row"),
        (["SET", "elsewhere", "1"], "does not start with"),
        (["SET", f"{P}view", "1"], "has no TTL, the table says 10 s"),
        (["SET", f"{P}view", "1", "EX", "500"], "lives"),
        (["SET", f"{P}strategy", "1"], "is a string, the table says hash"),
        (["HSET", f"{P}checks", *("x" if n % 2 else str(n) for n in range(130))], "holds 65"),
    ],
)
def test_each_broken_bound_is_named(own_redis: RedisServer, command: list[str], complaint: str) -> None:
    with sync_client(own_redis.url) as client:
        client.execute_command(*command)
        assert any(complaint in line for line in complaints(client)), complaints(client)


def test_a_stream_longer_than_its_bound_is_named_and_approximate_trimming_is_not(
    own_redis: RedisServer,
) -> None:
    key = "sv:v1:{f}:policy:history"
    with sync_client(own_redis.url) as client:
        for n in range(199):
            client.xadd(key, {"n": n}, maxlen=100, approximate=True)
        assert complaints(client) == []
        for n in range(199):
            client.xadd(key, {"n": n})
        assert "the table says at most 100" in "\n".join(complaints(client))


def test_a_server_of_ones_own_can_freeze_die_and_come_back_empty(own_redis: RedisServer) -> None:
    with sync_client(own_redis.url) as client:
        client.set("k", "v")
    own_redis.freeze()
    with (
        cast("Any", redis.Redis).from_url(own_redis.url, socket_timeout=0.2) as client,
        pytest.raises(redis.TimeoutError),
    ):
        client.get("k")
    own_redis.thaw()
    with sync_client(own_redis.url) as client:
        assert client.get("k") == b"v"
    own_redis.kill()
    with sync_client(own_redis.url) as client, pytest.raises(redis.ConnectionError):
        client.get("k")
    own_redis.start()
    with sync_client(own_redis.url) as client:
        assert client.get("k") is None


def test_the_machines_redis_server_serves_as_well(real_redis: RedisServer) -> None:
    with sync_client(real_redis.url) as client:
        assert client.info("server")["redis_version"]
