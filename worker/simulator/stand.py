"""What the stand-ins share: options, faults, requests, sockets; and how a fault meets an HTTP request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from aiohttp import web

from worker.simulator.answers import ContinueMode
from worker.simulator.errors import ErrorAnswer, http_error
from worker.simulator.faults import Fault, FaultBook
from worker.simulator.ledger import PROBE_MARK, Ledger, Request

__all__ = [
    "STAND",
    "Options",
    "Stand",
    "break_off",
    "fail",
    "hang",
    "json_body",
    "key_of",
    "noted",
    "provider_error",
    "refuse",
]


class Options(msgspec.Struct, kw_only=True, frozen=True):
    """How fast the healthy stand-ins are, in seconds, and how they answer.

    ``tts_speed`` is audio produced per second of time; ``end_of_turn_s`` the silence that ends an utterance.
    """

    llm_first_token_s: float = 0.06
    llm_token_s: float = 0.015
    tts_first_audio_s: float = 0.06
    tts_speed: float = 8.0
    stt_final_s: float = 0.12
    end_of_turn_s: float = 0.3
    eager_end_s: float | None = None
    word_s: float = 0.26
    answer_words: tuple[int, int] = (12, 25)
    voice_model: bool = False
    seed: int = 0

    def salt(self, model: str) -> str:
        """What makes answers differ between servers (seed) and, if wished, between models."""
        return f"{self.seed or ''}{model if self.voice_model else ''}"


@dataclass
class Stand:
    """The state of one simulator."""

    options: Options = field(default_factory=Options)
    faults: FaultBook = field(default_factory=FaultBook)
    ledger: Ledger = field(default_factory=Ledger)
    continue_modes: dict[tuple[str, str], ContinueMode] = field(
        default_factory=dict[tuple[str, str], ContinueMode]
    )
    status_pages: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    listeners: set[Callable[[str, str, str], None]] = field(
        default_factory=set[Callable[[str, str, str], None]]
    )
    """Called with role, provider, model ("" for all) when a fault is put on or off."""

    def set_fault(self, role: str, provider: str, model: str, fault: Fault) -> None:
        """Puts a fault on, and tells the open sockets."""
        self.faults.set(role, provider, model, fault)
        for listener in list(self.listeners):
            listener(role, provider, model)

    def clear_faults(
        self, role: str | None = None, provider: str | None = None, model: str | None = None
    ) -> None:
        """Takes faults off, and tells the open sockets."""
        self.faults.clear(role, provider, model)
        for listener in list(self.listeners):
            listener(role or "", provider or "", model or "")

    def open(
        self,
        request: web.Request,
        kind: str,
        role: str,
        provider: str,
        model: str,
        fault: Fault,
        user: object = None,
    ) -> Request:
        """Notes a request; a probe is known by its mark."""
        marked = (
            user == PROBE_MARK or PROBE_MARK in request.query_string or PROBE_MARK in request.headers.values()
        )
        return self.ledger.open(kind, role, provider, model, fault=fault.fault, probe=marked)


STAND = web.AppKey("stand", Stand)

BASE_PATHS = {"groq": "/groq/openai/v1", "openai": "/openai/v1", "cartesia": "/cartesia"}
"""Where each provider's own base URL ends."""


class BrokenOff(Exception):
    """The connection was closed on purpose; no answer follows."""


def provider_of(request: web.Request) -> str:
    """The provider whose stand-in is asked."""
    return next((name for name, base in BASE_PATHS.items() if f"{request.path}/".startswith(f"{base}/")), "")


def key_of(request: web.Request) -> str:
    """The API key of either header; "" when there is none."""
    given = request.headers.get("X-API-Key") or request.query.get("api_key") or ""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return given or (token.strip() if scheme.lower() == "bearer" else "")


def bad_key(request: web.Request) -> bool:
    """Any key is good but none and one beginning with "bad"."""
    key = key_of(request)
    return not key or key.startswith("bad")


async def json_body(request: web.Request) -> dict[str, Any] | None:
    """The JSON object sent; None when it is none."""
    try:
        body: object = msgspec.json.decode(await request.read())
    except msgspec.DecodeError:
        return None
    return cast("dict[str, Any]", body) if isinstance(body, dict) else None


def respond(answer: ErrorAnswer) -> web.Response:
    """An error answer as a response."""
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def provider_error(
    request: web.Request, noted: Request, status: int, *, fault: Fault | None = None
) -> web.Response:
    """The provider's own error answer, noted."""
    noted.status = status
    noted.end("fault")
    return respond(
        http_error(
            noted.provider,
            status,
            model=noted.model,
            retry_after=fault.retry_after if fault else None,
            code=fault.code if fault else None,
            version=request.headers.get("Cartesia-Version", "") or request.query.get("cartesia_version", ""),
        )
    )


def break_off(request: web.Request, *, at_once: bool = False) -> None:
    """Closes the connection in the middle of a response: what was written is sent, its end is not."""
    transport = request.transport
    if transport is None:
        return
    if at_once:
        transport.abort()
    else:
        transport.close()


def refuse(request: web.Request, noted: Request) -> web.Response:
    """Closes the connection without a response."""
    noted.end("fault")
    break_off(request, at_once=True)
    return web.Response()  # never sent: the connection is gone


async def hang(noted: Request) -> None:
    """Answers nothing until the client leaves (which cancels the handler)."""
    del noted
    await asyncio.Event().wait()


async def fail(request: web.Request, noted: Request, fault: Fault) -> web.Response | None:
    """What a fault does before the first output; None when the answer follows."""
    if bad_key(request):
        return provider_error(request, noted, 401)
    if fault.fault == "refuse":
        return refuse(request, noted)
    if fault.fault == "status" and not fault.mid_stream:
        return provider_error(request, noted, fault.status, fault=fault)
    if fault.fault == "hang" and not fault.mid_stream:
        await hang(noted)
    if fault.fault == "slow":
        await asyncio.sleep(fault.delay_s)
    return None


@contextlib.asynccontextmanager
async def noted(request: Request) -> AsyncGenerator[Request]:
    """Notes how a request ended: abandoned when the client left, a fault when it was one, else ok."""
    try:
        yield request
    except (asyncio.CancelledError, ConnectionError):
        # Breaking the connection off on purpose cancels the handler too.
        request.end("fault" if request.fault in ("cut", "refuse", "status") else "abandoned")
        raise
    except BrokenOff:
        request.end("fault")
        raise
    request.end("ok" if request.fault in ("ok", "slow") else "fault")
