"""The providers' own error answers: body and headers by status, as their documentation has them."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

__all__ = ["ErrorAnswer", "cartesia_event", "http_error"]

_CARTESIA_NEW = "2026-03-01"
"""From this version on Cartesia's errors have error_code, title and message."""

_OPENAI_SHAPE: dict[int, tuple[str, str, str | None]] = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You are not allowed to use this model.", "invalid_request_error", "permission_denied"),
    404: (
        "The model `{model}` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    408: ("Request timed out.", "server_error", None),
    413: ("Request too large for model `{model}`.", "tokens", "rate_limit_exceeded"),
    429: (
        (
            "Rate limit reached for model `{model}` in organization `org_stand_in` on tokens per minute "
            "(TPM): Limit 12000, Used 11840, Requested 420. Please try again in {again}."
        ),
        "tokens",
        "rate_limit_exceeded",
    ),
    498: ("Flex tier capacity exceeded for model `{model}`.", "capacity_exceeded", "capacity_exceeded"),
    500: ("Internal Server Error", "internal_server_error", None),
    502: ("Bad Gateway", "internal_server_error", None),
    503: ("Service Unavailable", "internal_server_error", None),
    504: ("Gateway Timeout", "internal_server_error", None),
}
_GROQ_OWN: dict[int, tuple[str, str, str | None]] = {
    401: ("Invalid API Key", "invalid_request_error", "invalid_api_key"),
    403: (
        "The model `{model}` is blocked at the project level. Please have a project admin enable this model.",
        "permissions_error",
        "model_permission_blocked_project",
    ),
}
_OPENAI_OWN: dict[int, tuple[str, str, str | None]] = {
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}
_OPENAI_CODES: dict[str, tuple[str, str]] = {
    "insufficient_quota": (
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    "slow_down": ("Slow down: your request rate has risen too fast.", "server_error"),
}
_CARTESIA: dict[int, tuple[str, str, str]] = {
    400: ("bad_request", "Bad request", "The request is invalid."),
    401: ("unauthorized", "Unauthorized", "Invalid API key."),
    402: ("quota_exceeded", "Payment required", "You have run out of credits."),
    403: ("forbidden", "Forbidden", "You are not allowed to use this model."),
    404: ("model_not_found", "Not found", "The model does not exist."),
    429: (
        "concurrency_limited",
        "Too many requests",
        "You have reached your plan's limit of concurrent requests.",
    ),
    500: ("internal_error", "Internal server error", "An internal error has occurred."),
    502: ("bad_gateway", "Bad gateway", "Bad gateway."),
    503: ("unavailable", "Service unavailable", "The service is unavailable. Please try again later."),
}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An HTTP error answer: status, body as bytes with its type, headers."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]


def _again(seconds: float) -> str:
    """A waiting time as Groq writes it: 10s, 2m59.56s."""
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".")
    return f"{int(minutes)}m{text}s" if minutes else f"{text}s"


def openai_body(
    provider: str, status: int, model: str, retry_after: float | None, code: str | None
) -> dict[str, Any]:
    """``{"error": {message, type, code}}`` of Groq or OpenAI (which also has ``param``)."""
    own = _GROQ_OWN if provider == "groq" else _OPENAI_OWN
    kind = "invalid_request_error" if status < 500 else "internal_server_error"
    message, kind, own_code = own.get(status) or _OPENAI_SHAPE.get(status) or (f"Error {status}", kind, None)
    if code in _OPENAI_CODES:
        message, kind = _OPENAI_CODES[code]
    error: dict[str, Any] = {
        "message": message.format(model=model, again=_again(10.0 if retry_after is None else retry_after)),
        "type": kind,
    }
    if provider == "openai":
        error["param"] = None
        error["code"] = code or own_code
    elif code or own_code:
        error["code"] = code or own_code
    return {"error": error}


def rate_headers(retry_after: float | None = None) -> dict[str, str]:
    """The x-ratelimit headers that Groq and OpenAI send with every answer."""
    spent = retry_after is not None
    return {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-limit-tokens": "12000",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-remaining-tokens": "0" if spent else "11580",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-reset-tokens": _again(retry_after) if retry_after is not None else "2.1s",
    }


def http_error(
    provider: str,
    status: int,
    *,
    model: str = "",
    retry_after: float | None = None,
    code: str | None = None,
    version: str = "",
) -> ErrorAnswer:
    """The provider's answer over HTTP (also at a WebSocket handshake); ``retry_after`` in seconds."""
    request_id = uuid.uuid4().hex
    if provider == "cartesia":
        own_code, title, message = _CARTESIA.get(status, ("error", f"Error {status}", f"Error {status}."))
        headers = {"X-Request-Id": request_id}
        if version < _CARTESIA_NEW:
            return ErrorAnswer(status, message.encode(), "text/plain", headers)
        body = {"error_code": code or own_code, "title": title, "message": message, "request_id": request_id}
        return ErrorAnswer(status, msgspec.json.encode(body), "application/json", headers)
    limited = status == 429
    wait_s = (10.0 if retry_after is None else retry_after) if limited else retry_after
    headers = {"x-request-id": f"req_{request_id[:26]}"}
    if status not in (401, 403):
        headers |= rate_headers(wait_s if limited else None)
    if limited or retry_after is not None:
        headers["retry-after"] = str(math.ceil(wait_s or 0.0))
    body = openai_body(provider, status, model, wait_s, code)
    return ErrorAnswer(status, msgspec.json.encode(body), "application/json", headers)


def cartesia_event(
    protocol: str,
    status: int,
    *,
    context_id: str = "",
    request_id: str = "",
    code: str | None = None,
    version: str = "",
) -> dict[str, Any]:
    """Cartesia's error inside an open socket; ``protocol`` is "tts", "turns" (ink-2) or "whisper"."""
    own_code, title, message = _CARTESIA.get(status, ("error", f"Error {status}", f"Error {status}."))
    if protocol == "whisper":
        return {"type": "error", "code": status, "message": message, "request_id": request_id}
    if protocol == "turns":
        return {
            "type": "error",
            "error_code": code or own_code,
            "status_code": status,
            "title": title,
            "message": message,
            "request_id": request_id,
        }
    event: dict[str, Any] = {"type": "error", "context_id": context_id, "done": True, "status_code": status}
    if version < _CARTESIA_NEW:
        return event | {"error": message}
    return event | {"error_code": code or own_code, "title": title, "message": message}
