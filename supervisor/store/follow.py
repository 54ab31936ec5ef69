"""Following many streams at once on a connection of its own: XREAD BLOCK and TIME in one round trip.

A blocked XREAD holds back the TIME that was sent behind it, so the time is the one at which entries came,
and an entry is here as soon as Redis has it: no polling stands between a fault and its verdict.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from redis.exceptions import RedisError

from supervisor.store.clients import make_client

if TYPE_CHECKING:
    from collections.abc import Mapping

Batch = list[tuple[bytes, list[tuple[bytes, list[bytes] | None]]]]


class Read(NamedTuple):
    """Entries by stream (id, flat list of fields and values), and Redis TIME in ms when they were read."""

    batch: Batch
    now_ms: int


class Follower:
    """One connection. Not for use by several tasks at a time."""

    def __init__(self, url: str, timeout_s: float) -> None:
        # No socket timeout: a blocked read may be silent for as long as it was told; `read` sets the limit.
        self._client = make_client(url, None, connect_timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._connection: Any = None

    async def read(self, cursors: Mapping[bytes, bytes], count: int, block_ms: int) -> Read:
        """Up to `count` entries of each stream after its cursor, waiting up to `block_ms` (0: not at all).

        Raises redis-py's errors, `OSError` or `TimeoutError`; the next call then opens a new connection.
        """
        try:
            async with asyncio.timeout(block_ms / 1000 + self._timeout_s):
                return await self._read(cursors, count, block_ms)
        except BaseException:
            # Also when cancelled: an answer that is still on its way must not be taken for the next one's.
            await self.drop()
            raise

    async def _read(self, cursors: Mapping[bytes, bytes], count: int, block_ms: int) -> Read:
        connection = self._connection
        if connection is None:
            connection = self._connection = cast("Any", self._client.connection_pool).make_connection()
            await connection.connect()
        commands: list[tuple[Any, ...]] = [("TIME",)]
        if cursors:
            block = ("BLOCK", block_ms) if block_ms > 0 else ()
            commands.insert(0, ("XREAD", "COUNT", count, *block, "STREAMS", *cursors, *cursors.values()))
        await connection.send_packed_command(connection.pack_commands(commands))
        batch: Batch = []
        trouble: RedisError | None = None
        if cursors:
            try:
                batch = cast("Batch | None", await connection.read_response(disable_decoding=True)) or []
            except RedisError as exc:
                trouble = exc
        seconds, micros = cast("list[bytes]", await connection.read_response(disable_decoding=True))
        if trouble is not None:
            raise trouble
        return Read(batch, int(seconds) * 1000 + int(micros) // 1000)

    async def drop(self) -> None:
        """Close the connection; the next read opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close for good."""
        await self.drop()
        await self._client.aclose()
