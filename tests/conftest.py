"""Fixtures that every test may use. Redis is always a real one; a test has a fleet of its own.

- `redis_url`, `redis_client`: the session's embedded Valkey, or the server that REDIS_URL names.
- `fleet`: a random fleet name; its keys are checked against the table of keys, then removed.
- `own_redis`: a server of the test's own, to kill, freeze and bring back.
- `real_redis`: the same from a `redis-server` on this machine (skipped where there is none, but not in CI).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
import redis.asyncio

from tests.support.key_check import complaints
from tests.support.redis_server import RedisEndpoint, RedisServer, missing, sync_client


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisEndpoint]:
    """The session's server. Never stop it or FLUSHALL: take `own_redis` for that."""
    given = os.environ.get("REDIS_URL")
    if given:
        yield RedisEndpoint(given, own=False)
        return
    with RedisServer() as server:
        yield RedisEndpoint(server.url, own=True)


@pytest.fixture
def redis_url(redis_server: RedisEndpoint) -> str:
    """URL of the session's server."""
    return redis_server.url


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client (bytes, not str) of the session's server, closed after the test."""
    client = cast("redis.asyncio.Redis", cast("Any", redis.asyncio.Redis).from_url(redis_url))
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
def fleet() -> str:
    """A fleet name that no other test has."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A started embedded server that belongs to this test alone."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def real_redis() -> Iterator[RedisServer]:
    """A started `redis-server` of this machine that belongs to this test alone."""
    binary = shutil.which("redis-server")
    if binary is None:
        missing("redis-server")
    with RedisServer(binary=binary) as server:
        yield server


@pytest.fixture(autouse=True)
def assert_no_unbounded_keys(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that used the session's Redis and left a key that breaks its bound."""
    if "redis_server" not in request.fixturenames:
        yield
        return
    endpoint = cast("RedisEndpoint", request.getfixturevalue("redis_server"))
    fleet = cast("str | None", request.getfixturevalue("fleet") if "fleet" in request.fixturenames else None)
    yield
    with sync_client(endpoint.url, socket_timeout=10) as client:
        # On a server of our own nothing else may be there, whatever fleet a test made up for itself.
        mine = f"sv:v1:{{{fleet}}}:*"
        marker = request.node.get_closest_marker("bounded_keys")
        ignore = cast("tuple[str, ...]", marker.kwargs.get("ignore", ()) if marker else ())
        unchecked = request.node.get_closest_marker("no_key_check") is not None
        found = [] if unchecked else complaints(client, "*" if endpoint.own else mine, ignore)
        # All of a server of our own, or each later test would be blamed for this one's keys.
        leftovers = list(client.scan_iter(match="*" if endpoint.own and found else mine, count=1_000))
        if leftovers:
            client.unlink(*leftovers)
    if found:
        pytest.fail("Redis keys without their bound:\n" + "\n".join(found), pytrace=False)
