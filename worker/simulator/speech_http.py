"""Speech over HTTP: Groq's and OpenAI's ``/audio/speech`` and ``/audio/transcriptions``, and Cartesia's."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import msgspec
import numpy as np
from aiohttp import BodyPartReader, web

from worker.simulator.errors import rate_headers
from worker.simulator.faults import Fault
from worker.simulator.ledger import Request
from worker.simulator.sound import FORMATS, encode_audio, read_wav, speak_text, wav_header
from worker.simulator.stand import (
    STAND,
    Stand,
    break_off,
    fail,
    hang,
    json_body,
    noted,
    provider_error,
    provider_of,
)
from worker.simulator.wordcode import Pcm, decode

__all__ = ["audio_speech", "audio_transcriptions", "tts_bytes"]

CHUNK_S = 0.1
MAX_UPLOAD = 32 * 1024 * 1024


def utter(
    stand: Stand, text: str, rate: int, voice: str, fault: Fault
) -> tuple[Pcm, list[str], list[tuple[float, float]]]:
    """What is said under a fault: zeros for ``silent``, nothing for ``empty``."""
    pcm, words, times = speak_text(text, rate, voice, stand.options.word_s)
    if fault.fault == "empty":
        return np.zeros(0, np.int16), [], []
    return (np.zeros_like(pcm), words, times) if fault.fault == "silent" else (pcm, words, times)


async def paced(stand: Stand, data: bytes, bytes_per_s: float) -> AsyncIterator[bytes]:
    """Sound in chunks of 100 ms, ``tts_speed`` times as fast as it is heard, after the first-audio time."""
    await asyncio.sleep(stand.options.tts_first_audio_s)
    size = max(2, round(bytes_per_s * CHUNK_S) // 2 * 2)
    for start in range(0, len(data), size):
        if start:
            await asyncio.sleep(CHUNK_S / stand.options.tts_speed)
        yield data[start : start + size]


async def _send_audio(
    request: web.Request,
    record: Request,
    fault: Fault,
    chunks: AsyncIterator[bytes],
    headers: dict[str, str],
    *,
    head: bytes = b"",
    wrap: Callable[[bytes], bytes] = bytes,
    tail: Callable[[web.StreamResponse], Awaitable[None]] | None = None,
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    record.status = 200
    await response.prepare(request)
    breaks = fault.fault in ("cut", "status", "hang")
    sent = 0
    async for chunk in chunks:
        if breaks and sent >= fault.after_chunks:
            break
        if sent == 0 and head:  # a file without sound is still a file
            await response.write(wrap(head))
        await response.write(wrap(chunk))
        record.sent_first()
        sent += 1
    if breaks:
        if fault.fault == "hang":
            await hang(record)
        break_off(request)
        return response
    if sent == 0 and head:  # a file without sound is still a file
        await response.write(wrap(head))
    if tail is not None:
        await tail(response)
    await response.write_eof()
    return response


async def audio_speech(request: web.Request) -> web.StreamResponse:
    """``POST /audio/speech``: WAV at 48 kHz from Groq, any format at 24 kHz from OpenAI, also as events."""
    stand, provider = request.app[STAND], provider_of(request)
    body = await json_body(request) or {}
    model, text, voice = str(body.get("model") or ""), body.get("input"), str(body.get("voice") or "")
    fault = stand.faults.pick("tts", provider, model)
    record = stand.open(request, "speech", "tts", provider, model, fault, body.get("user"))
    async with noted(record):
        if (failed := await fail(request, record, fault)) is not None:
            return failed
        kind = str(body.get("response_format") or "mp3")
        if not model or not isinstance(text, str) or not text.strip() or kind not in FORMATS:
            return provider_error(request, record, 400)
        rate = 48_000 if provider == "groq" else 24_000
        pcm, words, _ = utter(stand, text, rate, voice, fault)
        headers = {
            "Content-Type": FORMATS[kind],
            "x-request-id": f"req_{uuid.uuid4().hex[:26]}",
            **rate_headers(),
        }
        if len(pcm) == 0 or kind in ("wav", "pcm"):
            data, per_s, head = pcm.tobytes(), rate * 2.0, wav_header(rate) if kind == "wav" else b""
        else:
            data, head = await asyncio.to_thread(encode_audio, pcm, rate, kind), b""
            per_s = len(data) * rate / len(pcm)
        chunks = paced(stand, data, per_s)
        if body.get("stream_format") != "sse" or provider == "groq":
            return await _send_audio(request, record, fault, chunks, headers, head=head)

        async def done(response: web.StreamResponse) -> None:
            usage = {
                "input_tokens": len(words),
                "output_tokens": 20 * len(words),
                "total_tokens": 21 * len(words),
            }
            await response.write(_event({"type": "speech.audio.done", "usage": usage}))

        headers["Content-Type"] = "text/event-stream"
        return await _send_audio(request, record, fault, chunks, headers, head=head, wrap=_delta, tail=done)


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _delta(chunk: bytes) -> bytes:
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()})


async def tts_bytes(request: web.Request) -> web.StreamResponse:
    """Cartesia's ``POST /tts/bytes``: raw PCM, or WAV."""
    stand = request.app[STAND]
    body = await json_body(request) or {}
    model, text = str(body.get("model_id") or ""), body.get("transcript")
    fault = stand.faults.pick("tts", "cartesia", model)
    record = stand.open(request, "speech", "tts", "cartesia", model, fault)
    async with noted(record):
        if (failed := await fail(request, record, fault)) is not None:
            return failed
        form = output_format(body)
        if not model or not isinstance(text, str) or form is None:
            return provider_error(request, record, 400)
        container, rate = form
        pcm, _, _ = utter(stand, text, rate, voice_of(body), fault)
        headers = {
            "Content-Type": "audio/wav" if container == "wav" else "audio/pcm",
            "X-Request-Id": str(uuid.uuid4()),
        }
        head = wav_header(rate) if container == "wav" else b""
        return await _send_audio(
            request, record, fault, paced(stand, pcm.tobytes(), rate * 2.0), headers, head=head
        )


def output_format(body: dict[str, Any]) -> tuple[str, int] | None:
    """Container and sample rate asked for; None when the stand-in cannot speak it."""
    form: object = body.get("output_format")
    if not isinstance(form, dict):
        return None
    wanted = cast("dict[str, object]", form)
    rate, container = wanted.get("sample_rate"), wanted.get("container")
    if (
        wanted.get("encoding") != "pcm_s16le"
        or container not in ("raw", "wav")
        or not isinstance(rate, int)
        or rate < 14_000
    ):
        return None
    return str(container), rate


def voice_of(body: dict[str, Any]) -> str:
    """The id of the voice asked for."""
    voice: object = body.get("voice")
    return str(cast("dict[str, object]", voice).get("id")) if isinstance(voice, dict) else ""


async def audio_transcriptions(request: web.Request) -> web.StreamResponse:
    """``POST /audio/transcriptions``: the words decoded from the uploaded WAV."""
    stand, provider = request.app[STAND], provider_of(request)
    fields, audio = await _form(request)
    model = fields.get("model", "")
    fault = stand.faults.pick("stt", provider, model)
    record = stand.open(request, "transcription", "stt", provider, model, fault, fields.get("user"))
    async with noted(record):
        if (failed := await fail(request, record, fault)) is not None:
            return failed
        try:
            pcm, rate = read_wav(audio)
            words = decode(pcm, rate)
        except ValueError:
            return provider_error(request, record, 400)
        await asyncio.sleep(stand.options.stt_final_s)
        text = "" if fault.fault in ("silent", "empty") else " ".join(words)
        return await _transcript(
            request, record, fault, text, fields.get("response_format", "json"), len(pcm) / rate
        )


async def _transcript(
    request: web.Request, record: Request, fault: Fault, text: str, kind: str, duration_s: float
) -> web.StreamResponse:
    body: dict[str, Any] = {"text": text, "x_groq": {"id": f"req_{uuid.uuid4().hex[:26]}"}}
    if kind == "verbose_json":
        body |= {"task": "transcribe", "language": "english", "duration": duration_s, "segments": []}
    data = text.encode() if kind == "text" else msgspec.json.encode(body)
    headers = {"Content-Type": "text/plain" if kind == "text" else "application/json", **rate_headers()}
    headers["x-request-id"] = f"req_{uuid.uuid4().hex[:26]}"
    record.status = 200
    if fault.fault in ("cut", "status"):  # a single answer breaks in its middle
        response = web.StreamResponse(headers=headers | {"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        break_off(request)
        return response
    record.sent_first()
    return web.Response(body=data, headers=headers)


async def _form(request: web.Request) -> tuple[dict[str, str], bytes]:
    """The text fields and the file of a multipart form; empty where there are none."""
    fields: dict[str, str] = {}
    audio = b""
    if not request.content_type.startswith("multipart/"):
        return fields, audio
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.name == "file":
            audio = bytes(await part.read())
            if len(audio) > MAX_UPLOAD:
                raise web.HTTPRequestEntityTooLarge(max_size=MAX_UPLOAD, actual_size=len(audio))
        elif part.name:
            fields[part.name] = await part.text()
    return fields, audio
