"""Digs plain values out of livekit's, the SDKs' and aiohttp's exceptions, and lets the exception go.

The provider's answer (headers, body) hangs on the exception's chain only while the plugin's `error` handler
runs: later `LLMStream.__anext__` replaces the context. So `watch` digs there and leaves the values on the
exception as `Evidence`; `fault_of` reads them. The exception also holds the request with its API
key: it is never stored, logged or formatted here.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from livekit.agents import APIConnectionError, APIError

from supervisor.wire.vocabulary import Phase
from worker.guard.classify import classify
from worker.guard.faults import Fault

_ATTRIBUTE: Final = "_supervisor_evidence"
_MAX_CHAIN: Final = 10
_MAX_TEXT: Final = 4000
_HEADERS: Final = (
    "retry-after", "retry-after-ms", "x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "x-request-id", "request-id", "dg-request-id",
    "dg-error", "cartesia-request-id",
)  # fmt: skip
_IDS: Final = ("x-request-id", "request-id", "dg-request-id", "cartesia-request-id")
_BRACES: Final = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Plain values of an error. Their text is not redacted yet, so it is kept out of repr."""

    status: int = 0
    code: str = ""
    text: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    exc_types: tuple[str, ...] = ()
    request_id: str = ""

    def fault(self, provider: str, phase: Phase) -> Fault:
        """These values as a fault."""
        return classify(
            provider,
            status=self.status,
            code=self.code,
            text=self.text,
            headers=self.headers,
            exc_types=self.exc_types,
            request_id=self.request_id,
            phase=phase,
        )


def watch(plugin: Any) -> Callable[[], None]:
    """Listen to a plugin's `error` events and dig while the provider's answer is still there. Returns the way out."""

    def on_error(event: Any) -> None:
        exc = getattr(event, "error", None)
        if isinstance(exc, BaseException):
            _leave(exc)

    plugin.on("error", on_error)

    def stop() -> None:
        plugin.off("error", on_error)

    return stop


def fault_of(exc: BaseException, provider: str, phase: Phase) -> Fault:
    """What an exception says. Never raises."""
    if isinstance(exc, asyncio.CancelledError):
        return classify(provider, exc_types=("CancelledError",), phase=phase)
    return _leave(exc).fault(provider, phase)


def _leave(exc: BaseException) -> Evidence:
    left = getattr(exc, _ATTRIBUTE, None)
    if isinstance(left, Evidence):
        return left
    try:
        found = dig(exc)
    except Exception as error:  # noqa: BLE001 - an odd exception must not break the call that it broke already
        found = Evidence(exc_types=(type(exc).__name__, type(error).__name__))
    with contextlib.suppress(AttributeError):  # an exception with slots keeps nothing
        setattr(exc, _ATTRIBUTE, found)
    return found


def dig(exc: BaseException) -> Evidence:
    """Plain values of an exception and of what hangs on it."""
    status, code, request_id = 0, "", ""
    kind = ""  # `error.type` says less than a status: it counts only in a stream, where there is none
    texts: list[str] = []
    headers: dict[str, str] = {}
    types: list[str] = []
    for link in _chain(exc):
        types.append(type(link).__name__)
        status = status or _status(link)
        body = getattr(link, "body", None)
        inner = _error_of(body)
        code = code or _word(_code(link)) or _word(_first(inner, "code", "error_code", "err_code"))
        kind = kind or _word(_first(inner, "type"))
        status = status or _number(_first(inner, "status_code", "status", "code"))
        request_id = (
            request_id or _word(getattr(link, "request_id", None)) or _word(_first(inner, "request_id"))
        )
        texts.append(_text(link, inner))
        _take_headers(link, headers)
    text = next((t for t in texts if t), "")
    said = _in_band(text)
    if said:
        code = code or _word(_first(said, "error_code", "code"))
        status = status or _number(_first(said, "status_code", "code"))
        request_id = request_id or _word(_first(said, "request_id"))
        text = _message(said) or text
    if not code:
        code = headers.get("dg-error", "") or ("" if status > 0 else kind)
    if not request_id:
        request_id = next((headers[name] for name in _IDS if name in headers), "")
    return Evidence(status, code, text[:_MAX_TEXT], headers, tuple(types), request_id)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(link))
        if not isinstance(link, StopAsyncIteration):
            yield link
        # `from None` hides the context from tracebacks, but the SDK's error with its headers is still there.
        link = link.__cause__ or link.__context__


def _code(exc: BaseException) -> object:
    # aiohttp's `code` is the status under a deprecated name, and reading it warns.
    return None if type(exc).__module__.startswith("aiohttp.") else getattr(exc, "code", None)


def _status(exc: BaseException) -> int:
    found = _number(getattr(exc, "status_code", None))
    if found:
        return found
    return _number(getattr(exc, "status", None))


def _text(exc: BaseException, inner: Mapping[str, Any]) -> str:
    said = _message(inner)
    if said:
        return said
    message = getattr(exc, "message", None)
    if isinstance(message, str):
        # "Connection error." is livekit's and the SDK's default; the cause says more.
        default = isinstance(exc, APIConnectionError) or type(exc).__name__ == "APIConnectionError"
        return "" if default else message
    if isinstance(exc, APIError):
        return ""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - some of aiohttp's exceptions fail to print themselves
        return ""


def _error_of(body: object) -> Mapping[str, Any]:
    """The error object inside a response's body, whatever its nesting."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            return {}
    for _ in range(3):
        if not isinstance(body, dict):
            return {}
        known = cast("dict[str, Any]", body)
        if isinstance(known.get("error"), dict):
            body = known["error"]
            continue
        return known
    return {}


def _message(said: Mapping[str, Any]) -> str:
    parts = [
        v
        for key in ("title", "message", "error", "err_msg", "reason")
        if isinstance(v := said.get(key), str) and v
    ]
    return ": ".join(dict.fromkeys(parts))


def _in_band(text: str) -> Mapping[str, Any]:
    """The dictionary that Cartesia's plugin prints into its message: `Cartesia returned error: {…}`."""
    if "returned error" not in text:
        return {}
    found = _BRACES.search(text)
    if found is None:
        return {}
    try:
        said = ast.literal_eval(found.group(0))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            said = json.loads(found.group(0))
        except ValueError:
            return {}
    return _error_of(said)


def _take_headers(exc: BaseException, into: dict[str, str]) -> None:
    response = getattr(exc, "response", None)
    headers = getattr(response, "headers", None) if response is not None else getattr(exc, "headers", None)
    get = getattr(headers, "get", None)
    if get is None:
        return
    for name in _HEADERS:
        value = get(name)
        if isinstance(value, str) and name not in into:
            into[name] = value[:200]


def _first(said: Mapping[str, Any], *names: str) -> Any:
    return next((v for name in names if (v := said.get(name)) is not None), None)


def _word(value: object) -> str:
    return value[:128] if isinstance(value, str) else ""


def _number(value: object) -> int:
    if isinstance(value, bool):
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 4:
        return int(value)
    return value if isinstance(value, int) and -1 <= value < 5000 else 0
