"""The outermost layer of every request: who is asking, where from, how big, and the headers of every answer.

Rule: a route is closed unless its path is in `OPEN_PATHS` (or a setting opens it): a new route that forgets
about tokens is a route that needs one.
"""

from __future__ import annotations

import asyncio
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders

from supervisor.api.auth import COOKIE, Principal
from supervisor.api.problems import Problem, of_exception

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from supervisor.api.auth import TokenBook
    from supervisor.settings import SupervisorSettings

log = structlog.stdlib.get_logger(__name__)

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/login", "/logout"})
OPEN_PREFIXES: Final = ("/static/",)
MAX_BODY_BYTES: Final = 64 * 1024
BODY_TIMEOUT_S: Final = 10.0
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def check_origin(headers: Headers) -> None:
    """Refuse a change that another site's page caused. Raises `Problem` 403.

    Browsers send Sec-Fetch-Site, or at least Origin, with every unsafe request; other clients send neither.
    """
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    foreign = False
    if site is not None:
        foreign = site.lower() not in {"same-origin", "none"}
    elif origin is not None:
        try:
            foreign = urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:
            foreign = True
    if foreign:
        raise Problem(
            403,
            "cross-origin",
            "changes are not accepted from pages of another site",
            remedy="use the supervisor's own page, its CLI, or a client that is no browser",
        )


def cookie_token(headers: Headers) -> str | None:
    """The token in the page's cookie, if there is one."""
    raw = headers.get("cookie")
    if not raw:
        return None
    try:
        morsel = SimpleCookie(raw).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


class Security:
    """ASGI middleware; see the module's first lines."""

    def __init__(self, app: ASGIApp, tokens: TokenBook, settings: SupervisorSettings) -> None:
        self._app = app
        self._tokens = tokens
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope.get("scheme") == "https":
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        try:
            headers = Headers(scope=scope)
            if scope["method"] not in _SAFE:
                check_origin(headers)
            if not self._open(scope["path"]):
                scope.setdefault("state", {})["principal"] = await self._principal(scope, headers)
            if scope["method"] not in _SAFE:
                receive = await _whole_body(receive, headers)
            await self._app(scope, receive, send_with_headers)
        except Exception as exc:  # noqa: BLE001 - the last line before the server, which would print it raw
            if started:
                log.error("an answer broke off", action="api.broke_off", error=type(exc).__name__)
                return
            await of_exception(exc).response()(scope, receive, send_with_headers)

    def _open(self, path: str) -> bool:
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES):
            return True
        return path == "/metrics" and self._settings.metrics_open

    async def _principal(self, scope: Scope, headers: Headers) -> Principal:
        client = scope.get("client")
        peer = str(client[0]) if client else ""
        try:
            return await self._tokens.authenticate(headers, peer, cookie_token(headers))
        except Problem as problem:
            if problem.status == 401 and _wants_page(scope, headers):
                raise Problem(303, "login", "log in first", headers={"Location": "/login"}) from None
            raise


def _wants_page(scope: Scope, headers: Headers) -> bool:
    path = str(scope["path"])
    return (
        scope["method"] == "GET" and not path.startswith("/v1") and "text/html" in headers.get("accept", "")
    )


async def _whole_body(receive: Receive, headers: Headers) -> Receive:
    """Read the body before anything else sees it, so that its size is bounded for every route."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return _replay(message, receive)
                body: bytes = message.get("body", b"")
                size += len(body)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(body)
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Problem(408, "slow-body", f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    return _replay({"type": "http.request", "body": b"".join(parts), "more_body": False}, receive)


def _replay(first: Message, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return first
        return await receive()

    return again


def _too_large() -> Problem:
    return Problem(413, "too-large", f"the body is larger than {MAX_BODY_BYTES} bytes")
