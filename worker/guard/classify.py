"""From an error's plain values to a `Fault`. Pure; `worker.guard.evidence` digs the values out of exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from supervisor.wire.vocabulary import CREDENTIAL_KINDS, LIMIT_KINDS, FaultKind, Phase
from worker.guard.faults import Fault
from worker.guard.redact import redact
from worker.guard.tables import GENERIC, table_of
from worker.guard.tables.shape import Table

MAX_RETRY_AFTER_MS: Final = 24 * 3600 * 1000

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|h|m|s)", re.IGNORECASE)
_TRY_AGAIN: Final = re.compile(
    r"(?:try again|retry|wait)\s+(?:in|after|for)\s+((?:\d+(?:\.\d+)?\s*[a-z]+\s*)+)", re.IGNORECASE
)
_UNIT_MS: Final = {"ms": 1, "milli": 1, "h": 3_600_000, "m": 60_000, "s": 1000}

# Names of exceptions in an error's chain, newest first, and what they say whatever the provider.
_LOCAL_TYPES: Final = frozenset({"CancelledError", "PoolTimeout", "MemoryError", "ConnectionPoolTimeout"})
_TIMEOUT_TYPES: Final = frozenset(
    {
        "TimeoutError",
        "APITimeoutError",
        "ReadTimeout",
        "ServerTimeoutError",
        "SocketTimeoutError",
        "TimeoutException",
    }
)
_CONNECT_TYPES: Final = frozenset({
    "ConnectError", "ConnectTimeout", "WriteTimeout", "ClientConnectorError", "ClientConnectorDNSError",
    "ClientConnectorSSLError", "ClientConnectorCertificateError", "ConnectionRefusedError", "gaierror",
    "ConnectionTimeoutError", "SSLError", "SSLCertVerificationError", "ServerConnectionError",
})  # fmt: skip
_BROKEN_TYPES: Final = frozenset({
    "RemoteProtocolError", "ReadError", "WriteError", "CloseError", "ServerDisconnectedError", "ClientPayloadError",
    "ClientOSError", "ConnectionResetError", "BrokenPipeError", "IncompleteRead", "IncompleteReadError",
    "ConnectionAbortedError", "ClientConnectionResetError", "TransferEncodingError",
})  # fmt: skip
_PROTOCOL_TYPES: Final = frozenset({
    "JSONDecodeError", "UnicodeDecodeError", "ValidationError", "KeyError", "LocalProtocolError", "DecodingError",
    "WSMessageTypeError", "WebSocketError", "APIResponseValidationError",
})  # fmt: skip
_LOCAL_TEXTS: Final = (
    "network is unreachable", "no route to host", "temporary failure in name resolution", "too many open files",
    "session is closed", "event loop is closed", "client has been closed", "cannot assign requested address",
)  # fmt: skip


def classify(
    provider: str,
    *,
    status: int = 0,
    code: str = "",
    text: str = "",
    headers: Mapping[str, str] | None = None,
    exc_types: tuple[str, ...] = (),
    request_id: str = "",
    phase: Phase = Phase.CONNECT,
) -> Fault:
    """What went wrong, of which kind, and how long the provider wants to be left alone.

    status: HTTP status, WebSocket close code, or -1/0 for none. code: the provider's own word for it.
    headers: lower-case names. exc_types: names of the exception types in the chain, outermost first.
    """
    kind = _kind(table_of(provider), status, code.lower(), text.lower(), exc_types, phase)
    wanted = retry_after_ms(headers or {}, text) if kind in LIMIT_KINDS or kind is FaultKind.OVERLOADED else 0
    return Fault(
        kind=kind,
        status=max(int(status), 0),
        request_id=redact_id(request_id),
        retry_after_ms=wanted,
        message=redact(text) or _plain(exc_types),
        phase=phase,
    )


def _kind(
    table: Table, status: int, code: str, text: str, exc_types: tuple[str, ...], phase: Phase
) -> FaultKind:
    if any(name in _LOCAL_TYPES for name in exc_types) or any(word in text for word in _LOCAL_TEXTS):
        return FaultKind.LOCAL
    said = table.codes.get(code) or GENERIC.codes.get(code) if code else None
    # A request too large for the limit (413) will not fit later either, whatever its code says of rates.
    overruled = status in {413, 422} or (said is FaultKind.BAD_REQUEST and status in {401, 403, 404, 429})
    if said is not None and not overruled:
        return said
    if 100 <= status < 1000:
        return _by_status(table, status, text)
    if 1000 <= status < 5000:
        return _by_close(table, status, text, phase)
    by_text = _by_text(table, text)
    if by_text is not None:
        return by_text
    return _by_type(exc_types, phase, closed=status == -1)


def _by_status(table: Table, status: int, text: str) -> FaultKind:
    # A 429 or 402/403 may mean rate, concurrency or money: only the words tell. A 5xx is what it says.
    if status < 500:
        by_text = _by_text(table, text)
        if by_text is not None and (
            (by_text in LIMIT_KINDS and status == 429)
            or (by_text in CREDENTIAL_KINDS and status in {400, 401, 402, 403, 429})
        ):
            return by_text
    found = table.statuses.get(status) or GENERIC.statuses.get(status)
    if found is not None:
        return found
    if status >= 500:
        return FaultKind.SERVER
    return FaultKind.BAD_REQUEST if status >= 400 else FaultKind.PROTOCOL


def _by_close(table: Table, code: int, text: str, phase: Phase) -> FaultKind:
    by_text = _by_text(table, text)
    if by_text is not None:
        return by_text
    found = table.closes.get(code) or GENERIC.closes.get(code)
    return found or _broken(phase)


def _by_text(table: Table, text: str) -> FaultKind | None:
    for words, kind in (*table.texts, *GENERIC.texts):
        if words in text:
            return kind
    return None


def _by_type(exc_types: tuple[str, ...], phase: Phase, *, closed: bool) -> FaultKind:
    # The innermost exception knows best: the outer ones are livekit's and the SDK's wrappings.
    for name in reversed(exc_types):
        if name in _CONNECT_TYPES:
            return FaultKind.CONNECT
        if name in _BROKEN_TYPES:
            return _broken(phase)
        if name in _TIMEOUT_TYPES:
            return FaultKind.STALLED if phase is Phase.MID_STREAM else FaultKind.FIRST_OUTPUT_TIMEOUT
        if name in _PROTOCOL_TYPES:
            return FaultKind.PROTOCOL
    if closed or "APIConnectionError" in exc_types:
        return _broken(phase)
    return FaultKind.UNKNOWN


def _broken(phase: Phase) -> FaultKind:
    return FaultKind.CUT if phase is Phase.MID_STREAM else FaultKind.CONNECT


def duration_ms(text: str) -> int:
    """`2m59.56s`, `1h2m`, `120ms`, `7.66s`, `20 seconds` in milliseconds; a bare number is seconds; 0 if none.

    A date, which HTTP allows as well, is none ("05 Mar" is not five minutes).
    """
    text = text.strip()
    if text.endswith("GMT"):
        return 0
    try:
        return _clamp(float(text) * 1000)
    except ValueError:
        pass
    total = 0.0
    for found in _DURATION.finditer(text):
        total += float(found.group(1)) * _UNIT_MS[found.group(2).lower()]
    return _clamp(total)


def retry_after_ms(headers: Mapping[str, str], text: str = "") -> int:
    """How long the provider wants to be left alone: `retry-after(-ms)`, words, else the used-up limit's reset."""
    in_ms = headers.get("retry-after-ms", "")
    if in_ms:
        try:
            return _clamp(float(in_ms))
        except ValueError:
            pass
    found = duration_ms(headers.get("retry-after", ""))
    if found:
        return found
    words = _TRY_AGAIN.search(text)
    if words is not None:
        found = duration_ms(words.group(1))
        if found:
            return found
    resets = [
        duration_ms(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max(resets, default=0)


def redact_id(request_id: str) -> str:
    """A request id as it may be shown: printable, at most 128 characters, and nothing that is no id."""
    return request_id if re.fullmatch(r"[\w.:-]{1,128}", request_id) else ""


def _clamp(value_ms: float) -> int:
    if not 0.0 < value_ms < float("inf"):
        return 0
    return min(int(value_ms), MAX_RETRY_AFTER_MS)


def _plain(exc_types: tuple[str, ...]) -> str:
    return redact(exc_types[-1]) if exc_types else ""
