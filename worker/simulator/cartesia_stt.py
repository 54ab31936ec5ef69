"""Cartesia's speech-to-text WebSockets: ink-2 with turns, ink-whisper with final transcripts."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any, cast

import msgspec
import numpy as np
from aiohttp import WSMsgType, web

from worker.simulator.errors import cartesia_event
from worker.simulator.faults import Fault
from worker.simulator.hearing import Ear, Happening
from worker.simulator.ledger import Request
from worker.simulator.stand import STAND, Stand, bad_key, break_off, noted, provider_error, refuse

__all__ = ["stt_turns_websocket", "stt_websocket"]

JsonObject = dict[str, Any]


async def stt_turns_websocket(request: web.Request) -> web.StreamResponse:
    """``WS /stt/turns/websocket`` (ink-2)."""
    return await _serve(request, "turns")


async def stt_websocket(request: web.Request) -> web.StreamResponse:
    """``WS /stt/websocket`` (ink-whisper)."""
    return await _serve(request, "whisper")


async def _serve(request: web.Request, protocol: str) -> web.StreamResponse:
    stand, query = request.app[STAND], request.query
    model = query.get("model", "")
    fault = stand.faults.pick("stt", "cartesia", model)
    record = stand.open(request, "connection", "stt", "cartesia", model, fault)
    if bad_key(request):
        return provider_error(request, record, 401)
    if fault.fault == "refuse":
        return refuse(request, record)
    if fault.fault == "status" and not fault.mid_stream:
        return provider_error(request, record, fault.status, fault=fault)
    rate = query.get("sample_rate", "")
    if (
        not model
        or query.get("encoding") != "pcm_s16le"
        or not rate.isdigit()
        or not 14_000 <= int(rate) <= 192_000
    ):
        return provider_error(request, record, 400)
    socket = web.WebSocketResponse(max_msg_size=1 << 20)
    request_id = str(uuid.uuid4())
    socket.headers["X-Request-Id"] = request_id
    record.status = 101
    async with noted(record):
        await socket.prepare(request)
        session = _Session(request, socket, stand, record, fault, protocol, int(rate), request_id)
        await session.run()
    return socket


class _Session:
    """One socket: sound in, events out in order, each not before it is due."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        stand: Stand,
        record: Request,
        fault: Fault,
        protocol: str,
        rate: int,
        request_id: str,
    ) -> None:
        self._request = request
        self._socket = socket
        self._stand = stand
        self._record = record
        self._fault = fault
        self._protocol = protocol
        self._request_id = request_id
        self._ear = Ear(
            rate, stand.options.end_of_turn_s, stand.options.eager_end_s if protocol == "turns" else None
        )
        self._out: asyncio.Queue[tuple[float, JsonObject | None, Request | None]] = asyncio.Queue()
        self._utterance: Request | None = None
        self._outputs = 0
        self._owed_delay_s = fault.delay_s if fault.fault == "slow" else 0.0
        self._hung = fault.fault == "hang"

    async def run(self) -> None:
        self._stand.listeners.add(self._fault_changed)
        sender = asyncio.create_task(self._send_all())
        try:
            if self._protocol == "turns" and not self._hung:
                self._say({"type": "connected"})
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    self._hear(cast("bytes", message.data))
                elif message.type is WSMsgType.TEXT and self._command(cast("str", message.data)):
                    await sender
                    break
        finally:
            self._stand.listeners.discard(self._fault_changed)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender
            if self._utterance is not None:
                self._utterance.end("abandoned" if self._fault.fault == "ok" else "fault")
        await self._socket.close()

    def _hear(self, data: bytes) -> None:
        happened = self._ear.push(np.frombuffer(data[: len(data) // 2 * 2], np.int16))
        for happening in happened:
            self._happen(happening)

    def _command(self, text: str) -> bool:
        """Obeys a text frame; whether the socket is to be closed."""
        command = text
        if text.startswith("{"):
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                command = str(msgspec.json.decode(text, type=dict[str, Any]).get("type"))
        if command in ("finalize", "close", "done"):
            for happening in self._ear.finish():
                self._happen(happening)
        if command == "finalize" and self._protocol == "whisper":
            self._say({"type": "flush_done"}, self._stand.options.stt_final_s)
        if command not in ("close", "done"):
            return False
        if self._protocol == "whisper":
            self._say({"type": "done"})
        if self._hung:
            return False
        self._out.put_nowait((0.0, None, None))
        return True

    def _happen(self, happening: Happening) -> None:
        if happening.kind == "start":
            record = self._stand.ledger.open(
                "utterance",
                "stt",
                "cartesia",
                self._record.model,
                fault=self._fault.fault,
                probe=self._record.probe,
            )
            self._utterance = record
        if self._fault.fault == "silent" or (
            self._fault.fault == "empty" and happening.kind not in ("start", "end")
        ):
            pass
        elif self._protocol == "turns":
            self._turn(happening)
        elif happening.kind == "end":
            self._final(happening)
        if happening.kind == "end" and self._utterance is not None:
            self._utterance.status = None if self._hung or self._fault.fault == "silent" else 200
            self._utterance.end("ok" if self._fault.fault in ("ok", "slow") else "fault")
            self._utterance = None

    def _turn(self, happening: Happening) -> None:
        text = "" if self._fault.fault == "empty" else happening.text
        match happening.kind:
            case "start":
                self._say({"type": "turn.start"})
            case "update":
                self._say({"type": "turn.update", "transcript": text}, counted=True)
            case "eager_end":
                self._say({"type": "turn.eager_end", "transcript": text})
            case "resume":
                self._say({"type": "turn.resume"})
            case "end":
                self._say(
                    {"type": "turn.end", "transcript": text}, self._stand.options.stt_final_s, counted=True
                )

    def _final(self, happening: Happening) -> None:
        words = () if self._fault.fault == "empty" else happening.words
        begin_s = words[0].start_s if words else happening.at_s
        event: JsonObject = {
            "type": "transcript",
            "is_final": True,
            "text": " ".join(word.word for word in words),
            "duration": round(happening.at_s - begin_s, 3),
            "words": [
                {"word": w.word, "start": round(w.start_s, 3), "end": round(w.end_s, 3)} for w in words
            ],
        }
        self._say(event, self._stand.options.stt_final_s, counted=True)

    def _say(self, event: JsonObject, after_s: float = 0.0, *, counted: bool = False) -> None:
        if self._hung:
            return
        loop = asyncio.get_running_loop()
        if counted:
            after_s += self._owed_delay_s
            self._owed_delay_s = 0.0
        event = {**event, "request_id": self._request_id}
        self._out.put_nowait((loop.time() + after_s, event, self._utterance if counted else None))
        if not counted:
            return
        self._outputs += 1
        if self._outputs >= self._fault.after_chunks:
            if self._fault.fault == "cut":
                self._out.put_nowait((0.0, {}, None))
            elif self._fault.fault == "status" and self._fault.mid_stream:
                self._fail_inside()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, event, utterance = await self._out.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if event is None:
                return
            if not event:
                break_off(self._request)
                return
            if self._hung:
                continue
            await self._socket.send_str(msgspec.json.encode(event).decode())
            if utterance is not None:
                self._record.sent_first()
                utterance.sent_first()
            elif event["type"] == "error":
                await self._socket.close(code=1011 if self._fault.status >= 500 else 1008)
                return

    def _fault_changed(self, role: str, provider: str, model: str) -> None:
        """A fault was put on or off: an open socket feels it at once; one that hangs never comes back."""
        if (
            role not in ("stt", "")
            or provider not in ("cartesia", "")
            or model not in (self._record.model, "")
        ):
            return
        fault = self._stand.faults.pick("stt", "cartesia", self._record.model)
        if fault.fault != "ok":
            for record in (self._record, self._utterance):
                if record is not None:
                    record.fault = fault.fault
        self._fault = fault
        if fault.fault == "hang":
            self._hung = True
        elif fault.fault == "cut":
            break_off(self._request)
        elif fault.fault == "refuse":
            break_off(self._request, at_once=True)
        elif fault.fault == "status" and not fault.mid_stream:
            self._fail_inside()
        elif fault.fault == "slow":
            self._owed_delay_s = fault.delay_s

    def _fail_inside(self) -> None:
        fault = self._fault
        self._record.status = fault.status
        event = cartesia_event(self._protocol, fault.status, request_id=self._request_id, code=fault.code)
        self._out.put_nowait((0.0, event, None))
