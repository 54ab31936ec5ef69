"""The leader's periodic looks: one task per request, jittered, each bounded in time and size.

Rules: it costs nobody anything, no key is ever logged, and a failure of our own network is no evidence
against a provider: not reaching one counts only while another host can be reached.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec
import redis.exceptions
import structlog

from supervisor import __version__
from supervisor.checks.parse import Hint, parse_answer, parse_summary
from supervisor.checks.providers import Look, Source, looks
from supervisor.checks.record import CheckRecord, encode
from supervisor.core.inputs import CheckEnded
from supervisor.wire.keys import BY_NAME

if TYPE_CHECKING:
    from supervisor.runtime.context import SupervisorContext

log = structlog.stdlib.get_logger(__name__)

Submit = Callable[[CheckEnded], Awaitable[object] | object]

TIMEOUT = httpx.Timeout(5.0, connect=3.0)
TOTAL_S = 8.0
MAX_BYTES = 2 * 1024 * 1024
JITTER = 0.2
FIRST_WITHIN_S = 2.0


def make_http() -> httpx.AsyncClient:
    """A client that connects again once, keeps few connections, and says who is asking."""
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(retries=1, limits=httpx.Limits(max_connections=8)),
        timeout=TIMEOUT,
        headers={"User-Agent": f"livekit-supervisor/{__version__}", "Accept": "application/json"},
    )


async def look(http: httpx.AsyncClient, request: Look) -> tuple[Hint, bool]:
    """One request: what it says, and whether a host was reached at all. Never raises but when cancelled."""
    try:
        async with asyncio.timeout(TOTAL_S):
            return await _look(http, request), True
    except (httpx.TimeoutException, TimeoutError):
        return Hint(False, "does not answer in time"), False
    except httpx.HTTPError as exc:
        # The exception's text may hold the URL; its type says enough.
        return Hint(False, f"cannot be reached ({type(exc).__name__})"), False
    except (httpx.InvalidURL, ValueError):
        return Hint(None, "cannot be asked: its URL setting is wrong"), False


async def _look(http: httpx.AsyncClient, request: Look) -> Hint:
    page = request.source is Source.STATUS_PAGE
    # With a key, redirects are not followed: the key is for this host alone.
    async with http.stream(
        "GET", request.url, headers=dict(request.headers), follow_redirects=page
    ) as answer:
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_BYTES:
                return Hint(None, "answered with more than can be read")
        if page:
            return (
                parse_summary(_json(body))
                if answer.is_success
                else Hint(None, f"answered {answer.status_code}")
            )
        return parse_answer(answer.status_code, _json(body))


def _json(body: bytes | bytearray) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Runner:
    """All looks of one leader."""

    def __init__(self, context: SupervisorContext, submit: Submit, http: httpx.AsyncClient) -> None:
        self._context = context
        self._submit = submit
        self._http = http
        self._reached_mono: dict[str, float] = {}
        self._said: dict[tuple[str, str], bool | None] = {}

    async def repeat(self, request: Look) -> None:
        """Look, tell, wait, for as long as this process leads."""
        # The first looks are spread, so that a takeover is no burst.
        await asyncio.sleep(random.uniform(0, min(FIRST_WITHIN_S, request.every_s)))
        while True:
            try:
                await self.once(request)
            except Exception as exc:  # noqa: BLE001 - one look that goes wrong must not end the others
                log.error(
                    "a check failed",
                    action="checks.failed",
                    provider=request.provider,
                    error=type(exc).__name__,
                )
            await asyncio.sleep(request.every_s * random.uniform(1 - JITTER, 1 + JITTER))

    async def once(self, request: Look) -> Hint:
        """One look: its hint goes to the engine and to the page."""
        began = time.monotonic()
        hint, reached = await look(self._http, request)
        now = time.monotonic()
        if reached:
            self._reached_mono[request.url] = now
        elif hint.ok is False and not self._network_works(request, now):
            hint = Hint(None, "cannot be reached, nor can any other host: perhaps our own network")
        self._log_change(request, hint)
        if hint.ok is not None:
            told = self._submit(
                CheckEnded(
                    provider=request.provider, ok=hint.ok, source=request.source.value, detail=hint.detail
                )
            )
            if inspect.isawaitable(told):
                await told
        await self._keep(request, hint, int((now - began) * 1000))
        return hint

    def _network_works(self, request: Look, now: float) -> bool:
        return any(
            url != request.url and now - at <= 2 * request.every_s + TOTAL_S
            for url, at in self._reached_mono.items()
        )

    def _log_change(self, request: Look, hint: Hint) -> None:
        name = (request.provider, request.source.value)
        if self._said.get(name, True) != hint.ok:
            log.info(
                "a check says something new",
                action="checks.changed",
                provider=request.provider,
                source=request.source.value,
                ok=hint.ok,
                detail=hint.detail,
            )
        self._said[name] = hint.ok

    async def _keep(self, request: Look, hint: Hint, took_ms: int) -> None:
        client, keys = cast("Any", self._context.redis), self._context.keys
        try:
            seconds, micros = await client.time()
            record = CheckRecord(
                provider=request.provider,
                source=request.source.value,
                ok=hint.ok,
                detail=hint.detail,
                at_ms=int(seconds) * 1000 + int(micros) // 1000,
                took_ms=took_ms,
                every_s=request.every_s,
            )
            pipe = client.pipeline(transaction=True)
            pipe.hset(keys("checks"), record.field, encode(record))
            pipe.expire(keys("checks"), BY_NAME["checks"].ttl_s)
            await pipe.execute()
        except (redis.exceptions.RedisError, OSError, TimeoutError) as exc:
            log.debug("a check was not kept", action="checks.not_kept", error=type(exc).__name__)


async def run(context: SupervisorContext, submit: Submit) -> None:
    """Look at every provider whose key is known until cancelled; ends at once when there is none.

    `submit` gets a `CheckEnded` per look that said something; it may be plain or async.
    """
    wanted = looks(context.settings) if context.settings.checks else []
    if not wanted:
        return
    providers = sorted({request.provider for request in wanted})
    log.info("checking providers", action="checks.started", providers=providers)
    async with make_http() as http:
        runner = Runner(context, submit, http)
        async with asyncio.TaskGroup() as tasks:
            for request in wanted:
                tasks.create_task(runner.repeat(request), name=f"check-{request.provider}-{request.source}")
