"""The link's second connection: SUBSCRIBE `wake`, and nothing else on it.

Rule: after each subscription the whole strategy is read (what was published before it is in the hash), and a
connection that has gone silent is found out by PING and replaced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

import structlog

from worker.link.redis_wire import TIMEOUT_S, RedisGone, RedisWire
from worker.link.reporter import BACKOFF_CAP_S

_log = structlog.get_logger("worker.link")

PING_EVERY_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.05


class WakeListener:
    """`on_wake(bytes)` gets what was published, `on_subscribed()` says that from now on nothing is missed."""

    def __init__(
        self, url: str, channel: str, on_wake: Callable[[bytes], None], on_subscribed: Callable[[], None]
    ) -> None:
        self._wire = RedisWire(url)
        self._channel = channel
        self._on_wake = on_wake
        self._on_subscribed = on_subscribed
        self.subscribed = False

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        told = ""
        while True:
            try:
                await self._subscribe()
                failures, told = 0, ""
                await self._listen()
            except RedisGone as gone:
                if gone.why != told:
                    _log.warning("wake-ups lost; strategy is polled", action="link.wake.down", why=gone.why)
                    told = gone.why
            finally:
                self.subscribed = False
            failures = min(failures + 1, 10)
            await asyncio.sleep(min(BACKOFF_CAP_S, _BACKOFF_BASE_S * 2**failures) * random.uniform(0.5, 1.0))

    async def close(self) -> None:
        await self._wire.close()

    async def _subscribe(self) -> None:
        await self._wire.open()
        await self._wire.send("SUBSCRIBE", self._channel)
        answer = await self._wire.read(TIMEOUT_S)
        if not answer or answer[0] != b"subscribe":
            await self._wire.close()
            raise RedisGone("no subscription")
        self.subscribed = True
        _log.info("listening for strategies", action="link.wake.up")
        self._on_subscribed()

    async def _listen(self) -> None:
        waiting_for_pong = False
        while True:
            message = await self._wire.read(PING_EVERY_S)
            if message is None:
                if waiting_for_pong:
                    await self._wire.close()
                    raise RedisGone("silent")
                await self._wire.send("PING")
                waiting_for_pong = True
                continue
            waiting_for_pong = False
            if message[0] == b"message" and isinstance(message[2], bytes):
                self._on_wake(message[2])
