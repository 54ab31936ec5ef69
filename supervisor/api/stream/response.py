"""The answer to `GET /v1/stream`: catch up, then follow, with heartbeats, until the client or the process goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response

from supervisor.api.stream.hub import Client, Cursor, Hub, Message, gap
from supervisor.runtime.tasks import end

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = structlog.stdlib.get_logger(__name__)

HEARTBEAT_S = 10.0
# A client that takes nothing off its socket for so long is gone or too slow.
SEND_S = 10.0
RETRY_MS = 2_000


def encode(message: Message) -> bytes:
    """One server-sent event."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        str(message.cursor).encode(),
        message.kind.encode(),
        message.data,
    )


class EventStream(Response):
    """Server-sent events of one client. `allowed` is asked at every heartbeat: a revoked token ends the stream."""

    media_type = "text/event-stream"

    def __init__(
        self,
        hub: Hub,
        client: Client,
        since: Cursor | None,
        kinds: frozenset[str],
        allowed: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # A stream has no length.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._hub = hub
        self._client = client
        self._since = since
        self._kinds = kinds
        self._allowed = allowed
        self._last = client.position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve until one side ends it."""
        pump = asyncio.create_task(self._pump(send), name="sse-client")
        gone = asyncio.create_task(_disconnected(receive), name="sse-gone")
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(self._client)
            for task in (pump, gone):
                await end(task)
            if not pump.cancelled() and pump.exception() is not None:
                log.info("a stream broke off", action="sse.broke_off", error=type(pump.exception()).__name__)

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._write(
            send, b"retry: %d\nid: %b\n\n" % (RETRY_MS, str(self._since or self._last).encode())
        )
        if self._since is not None:
            await self._catch_up(send, self._since)
        loop = asyncio.get_running_loop()
        beat_mono = loop.time()
        while not self._client.dropped:
            await self._write(send, self._chosen(await self._client.take(HEARTBEAT_S)))
            if loop.time() - beat_mono >= HEARTBEAT_S:
                beat_mono = loop.time()
                if not await self._allowed():
                    break
                # With its id, so that a client who filters comes back to where it was.
                await self._write(send, b": heartbeat\nid: %b\n\n" % str(self._last).encode())
        async with asyncio.timeout(SEND_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _catch_up(self, send: Send, since: Cursor) -> None:
        until, told, more = self._client.position, False, True
        while more and not self._client.dropped:
            messages, more, lost = await self._hub.missed(since, until)
            if lost and not told:
                told = True
                await self._write(
                    send, encode(gap(since, "older events are no longer kept; read the state anew"))
                )
            if not messages:
                break
            since = messages[-1].cursor
            await self._write(send, self._chosen(messages))

    def _chosen(self, messages: list[Message]) -> bytes:
        if messages:
            self._last = messages[-1].cursor
        return b"".join(
            encode(m)
            for m in messages
            if m.kind and (not self._kinds or m.kind in self._kinds or m.kind == "gap")
        )

    async def _write(self, send: Send, data: bytes) -> None:
        if not data:
            return
        async with asyncio.timeout(SEND_S):
            await send({"type": "http.response.body", "body": data, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
