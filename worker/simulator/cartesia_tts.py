"""Cartesia's text-to-speech WebSocket: many contexts on one pooled socket."""

from __future__ import annotations

import asyncio
import base64
import uuid
from typing import Any, cast

import msgspec
from aiohttp import WSMsgType, web

from worker.simulator.errors import cartesia_event
from worker.simulator.faults import Fault
from worker.simulator.ledger import Request
from worker.simulator.speech_http import output_format, paced, utter, voice_of
from worker.simulator.stand import STAND, BrokenOff, Stand, bad_key, break_off, noted, provider_error, refuse

__all__ = ["tts_websocket"]

JsonObject = dict[str, Any]
WORDS_A_MESSAGE = 4
"""Word times come a few words at a time, just before their sound."""
TIMED_LANGUAGES = ("en", "de", "es", "fr")
"""In others the sound comes without times."""


async def tts_websocket(request: web.Request) -> web.StreamResponse:
    """``WS /tts/websocket``. The model is known only inside: the handshake meets faults of the provider."""
    stand = request.app[STAND]
    if bad_key(request):
        record = stand.open(request, "connection", "tts", "cartesia", "", Fault())
        return provider_error(request, record, 401)
    peeked = stand.faults.peek("tts", "cartesia", "")
    # A share is of contexts: the handshakes, whose number depends on the pool, must not use it up.
    if peeked.fault in ("status", "refuse") and not peeked.mid_stream and peeked.share >= 1.0:
        fault = stand.faults.pick("tts", "cartesia", "")
        if fault.fault != "ok":
            record = stand.open(request, "connection", "tts", "cartesia", "", fault)
            if fault.fault == "refuse":
                return refuse(request, record)
            return provider_error(request, record, fault.status, fault=fault)
    socket = web.WebSocketResponse(max_msg_size=1 << 20)
    socket.headers["X-Request-Id"] = str(uuid.uuid4())
    await socket.prepare(request)
    await _Socket(request, socket, stand).run()
    return socket


class _Socket:
    def __init__(self, request: web.Request, socket: web.WebSocketResponse, stand: Stand) -> None:
        self.request = request
        self.socket = socket
        self.stand = stand
        self.version = request.query.get("cartesia_version", "")
        self._inputs: dict[str, asyncio.Queue[JsonObject]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            async for message in self.socket:
                if message.type is WSMsgType.TEXT:
                    await self._take(message.data)
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, text: str) -> None:
        try:
            body = cast("JsonObject", msgspec.json.decode(text, type=dict))
        except (msgspec.DecodeError, msgspec.ValidationError):
            await self.send(cartesia_event("tts", 400, version=self.version))
            return
        context_id = str(body.get("context_id") or uuid.uuid4())
        if body.get("cancel"):
            if (task := self._tasks.get(context_id)) is not None:
                task.cancel()
            return
        if context_id not in self._inputs:
            self._inputs[context_id] = asyncio.Queue()
            self._tasks[context_id] = asyncio.create_task(self._context(context_id, body))
            self._tasks[context_id].add_done_callback(lambda _: self._forget(context_id))
        self._inputs[context_id].put_nowait(body)

    def _forget(self, context_id: str) -> None:
        self._inputs.pop(context_id, None)
        self._tasks.pop(context_id, None)

    async def send(self, event: JsonObject) -> None:
        await self.socket.send_str(msgspec.json.encode(event).decode())

    async def _context(self, context_id: str, first: JsonObject) -> None:
        model = str(first.get("model_id") or "")
        fault = self.stand.faults.pick("tts", "cartesia", model)
        record = self.stand.open(self.request, "context", "tts", "cartesia", model, fault)
        try:
            async with noted(record):
                await _Context(self, context_id, record, fault, self._inputs[context_id]).speak(first)
        except (BrokenOff, ConnectionError):
            return  # noted; the socket is gone or answered


class _Context:
    """One context: texts in, sound out, in order."""

    def __init__(
        self,
        socket: _Socket,
        context_id: str,
        record: Request,
        fault: Fault,
        inputs: asyncio.Queue[JsonObject],
    ) -> None:
        self.socket = socket
        self.context_id = context_id
        self.record = record
        self.fault = fault
        self.inputs = inputs
        self.spoken_s = 0.0
        self.chunks = 0

    async def speak(self, first: JsonObject) -> None:
        fault = self.fault
        if fault.fault == "refuse":
            self._break(at_once=True)
        if fault.fault == "status" and (not fault.mid_stream or fault.after_chunks == 0):
            await self._error(fault.status, fault.code)
        if fault.fault == "hang" and not fault.mid_stream:
            await asyncio.Event().wait()
        if fault.fault == "slow":
            await asyncio.sleep(fault.delay_s)
        if not self.record.model or output_format(first) is None:
            await self._error(400)
        while True:
            body = await self.inputs.get()
            text = str(body.get("transcript") or "")
            if text.strip():
                await self._say(text, body)
            if body.get("flush"):
                await self._event(
                    "flush_done", done=False, flush_done=True, flush_id=int(body.get("flush_id") or 1)
                )
            if not body.get("continue"):
                break
        await self._event("done", done=True)

    async def _say(self, text: str, body: JsonObject) -> None:
        stand = self.socket.stand
        form = output_format(body) or ("raw", 24_000)
        pcm, words, times = utter(stand, text, form[1], voice_of(body), self.fault)
        pending = list(zip(words, times, strict=True))
        data = pcm.tobytes()
        if not body.get("add_timestamps") or body.get("language", "en") not in TIMED_LANGUAGES:
            pending = []
        sent = 0
        async for chunk in paced(stand, data, form[1] * 2.0):
            if self.chunks >= self.fault.after_chunks:
                await self._maybe_break()
            if pending and pending[0][1][0] <= sent / (form[1] * 2.0) + 0.1:
                await self._times(pending[:WORDS_A_MESSAGE])
                pending = pending[WORDS_A_MESSAGE:]
            sent += len(chunk)
            self.record.status = 200
            await self._event("chunk", data=base64.b64encode(chunk).decode(), done=False, step_time=12.5)
            self.record.sent_first()
            self.chunks += 1
        self.spoken_s += len(pcm) / form[1]
        if self.chunks >= self.fault.after_chunks:
            await self._maybe_break()

    async def _maybe_break(self) -> None:
        if self.fault.fault == "hang":
            await asyncio.Event().wait()
        if self.fault.fault == "cut":
            self._break()
        if self.fault.fault == "status" and self.fault.mid_stream:
            await self._error(self.fault.status, self.fault.code)

    async def _times(self, words: list[tuple[str, tuple[float, float]]]) -> None:
        timestamps = {
            "words": [word for word, _ in words],
            "start": [round(start + self.spoken_s, 4) for _, (start, _) in words],
            "end": [round(end + self.spoken_s, 4) for _, (_, end) in words],
        }
        await self._event("timestamps", done=False, word_timestamps=timestamps)

    async def _event(self, kind: str, **fields: object) -> None:
        status = 200 if kind == "done" else 206
        await self.socket.send({"type": kind, "status_code": status, "context_id": self.context_id, **fields})

    async def _error(self, status: int, code: str | None = None) -> None:
        self.record.status = status
        version = self.socket.version
        await self.socket.send(
            cartesia_event("tts", status, context_id=self.context_id, code=code, version=version)
        )
        raise BrokenOff

    def _break(self, *, at_once: bool = False) -> None:
        break_off(self.socket.request, at_once=at_once)
        raise BrokenOff
