"""One connection to Redis that never waits without a limit, and says plainly when it is of no use.

Rule: every call ends within the time limit, with answers or with `RedisGone`; then the connection is closed
and the caller opens another. It is used by one task alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final, cast

from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

TIMEOUT_S: Final = 1.0

Command = tuple[str | bytes | int, ...]
Answer = Any  # what Redis answered: int, bytes, None, a list of these, or a ResponseError as a value


class RedisGone(Exception):
    """Redis cannot be used now. `why` is a stable word for logs; it never holds an address or a password."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RedisWire:
    """See the module's rule. RESP2 on purpose: no HELLO, which a strict ACL need not allow."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for a URL that redis-py does not understand."""
        self._timeout_s = timeout_s
        make: Any = ConnectionPool
        self._pool = make.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            protocol=2,
            driver_info=None,  # nor CLIENT SETINFO
            decode_responses=False,
            socket_keepalive=True,
        )
        self._connection: Any = None

    async def open(self) -> None:
        """Connect and authenticate."""
        await self.close()
        connection = self._pool.make_connection()
        try:
            async with asyncio.timeout(2 * self._timeout_s):
                await connection.connect()
        except (RedisError, OSError, TimeoutError) as exc:
            await _drop(connection)
            raise RedisGone(type(exc).__name__) from None
        self._connection = connection

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def call(self, commands: Sequence[Command]) -> list[Answer]:
        """All commands in one round trip. What Redis refused stands as a `ResponseError` in its place."""
        connection = self._connection
        if connection is None:
            raise RedisGone("closed")
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                answers = [await self._read(connection) for _ in commands]
        except (RedisError, OSError, TimeoutError) as exc:
            await self.close()
            raise RedisGone(type(exc).__name__) from None
        except BaseException:
            await self.close()  # cancelled between question and answer: the next answer would be a wrong one
            raise
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            await self.close()
            raise RedisGone("ReadOnlyError")
        return answers

    async def send(self, *command: str | bytes | int) -> None:
        """Send without waiting for an answer (SUBSCRIBE, PING on a subscribed connection)."""
        connection = self._connection
        if connection is None:
            raise RedisGone("closed")
        try:
            await connection.send_packed_command(connection.pack_command(*command), check_health=False)
        except (RedisError, OSError, TimeoutError) as exc:
            await self.close()
            raise RedisGone(type(exc).__name__) from None

    async def read(self, timeout_s: float) -> list[bytes | int | None] | None:
        """The next thing pushed to a subscribed connection, or None when the time is up."""
        connection = self._connection
        if connection is None:
            raise RedisGone("closed")
        try:
            return cast("list[bytes | int | None] | None", await connection.read_response(timeout=timeout_s))
        except (RedisError, OSError) as exc:
            await self.close()
            raise RedisGone(type(exc).__name__) from None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await _drop(connection)

    async def _read(self, connection: Any) -> Answer:
        try:
            return await connection.read_response()
        except ResponseError as exc:
            return exc


async def _drop(connection: Any) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
