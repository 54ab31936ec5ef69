"""Problem details (RFC 9457): every error that leaves the REST face is one of these.

A problem says what is wrong (`detail`) and, where there is something to do, what (`remedy`). It never
repeats a body, a header or a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import redis.exceptions
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:livekit-supervisor:problem:"
MAX_ERRORS = 20


class Problem(Exception):
    """An error with its HTTP status. `code` is a stable word that becomes the problem's type.

    `remedy` says what to do next; `headers` go out with the answer; `extra` are further members.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.remedy = remedy
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def body(self) -> dict[str, object]:
        """The members of the problem document."""
        body: dict[str, object] = {
            "type": TYPE_BASE + self.code,
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
        }
        if self.remedy:
            body["remedy"] = self.remedy
        return {**self.extra, **body}

    def response(self) -> Response:
        """The answer itself."""
        return JSONResponse(self.body(), self.status, self.headers, media_type=MEDIA_TYPE)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def not_found(what: str, remedy: str = "") -> Problem:
    """404: `what` does not exist."""
    return Problem(404, "not-found", f"{what} does not exist", remedy=remedy)


def no_leader() -> Problem:
    """503: there is no picture to show, since no supervisor leads."""
    return Problem(
        503,
        "no-leader",
        "no supervisor leads this fleet at the moment, so there is no current view",
        remedy="a standby takes over within 3 s; otherwise start `supervisor serve` and look at /readyz",
        headers={"Retry-After": "2"},
    )


def no_reply() -> Problem:
    """504: a change was asked for, and no leader answered in time."""
    return Problem(
        504,
        "no-leader",
        "no leader answered within 3 s; none takes the change from now on, but one that had begun may have made it",
        remedy="look at /readyz of the supervisors and at what is in force (GET /v1/audit), then send it again",
    )


def redis_down() -> Problem:
    """503: Redis did not answer."""
    return Problem(
        503,
        "redis-down",
        "Redis does not answer",
        remedy="check REDIS_URL and the Redis server; workers go on with their last good strategy meanwhile",
        headers={"Retry-After": "2"},
    )


_HTTP_CODES = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "type": "object",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "A stable URN naming the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong."},
        "remedy": {"type": "string", "description": "What to do about it."},
        "errors": {
            "type": "array",
            "description": "For 422: every member that was wrong.",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
}


def _validation(exc: RequestValidationError) -> Problem:
    # Only where and what: `input` and `ctx` would repeat the caller's body.
    raw = cast("Sequence[dict[str, Any]]", exc.errors())
    errors = [
        {
            "where": ".".join(str(part) for part in item.get("loc", ())),
            "what": str(item.get("msg", "is wrong")),
        }
        for item in raw[:MAX_ERRORS]
    ]
    first = f"{errors[0]['where']}: {errors[0]['what']}" if errors else "the request is not valid"
    return Problem(422, "invalid", first[:300], extra={"errors": errors})


def of_exception(exc: Exception) -> Problem:
    """The problem that any exception of a request becomes. Its text may hold anything, so only its type is logged."""
    if isinstance(exc, Problem):
        return exc
    if isinstance(exc, (redis.exceptions.RedisError, ConnectionError, TimeoutError)):
        log.warning("redis did not answer a request", action="api.redis_down", error=type(exc).__name__)
        return redis_down()
    log.error("a request failed", action="api.failed", error=type(exc).__name__)
    return Problem(500, "internal", "this request failed inside the supervisor; see its log")


def install(app: FastAPI) -> None:
    """Make the framework's own errors problem documents; all others come to `of_exception` in the outer layer."""

    async def on_problem(_: Request, exc: Exception) -> Response:
        return cast("Problem", exc).response()

    async def on_http(_: Request, exc: Exception) -> Response:
        error = cast("HTTPException", exc)
        code = _HTTP_CODES.get(error.status_code, "error")
        detail = str(error.detail or _title(error.status_code))
        return Problem(error.status_code, code, detail, headers=error.headers).response()

    async def on_invalid(_: Request, exc: Exception) -> Response:
        return _validation(cast("RequestValidationError", exc)).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
