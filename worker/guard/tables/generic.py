"""What a status, a close code, a code word or a phrase means when a provider's own table has no entry."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind as K
from worker.guard.tables.shape import Table

TABLE = Table(
    codes={
        "invalid_api_key": K.AUTHENTICATION,
        "invalid_authentication": K.AUTHENTICATION,
        "unauthorized": K.AUTHENTICATION,
        "insufficient_quota": K.QUOTA,
        "billing_hard_limit_reached": K.QUOTA,
        "rate_limit_exceeded": K.RATE_LIMIT,
        "too_many_requests": K.RATE_LIMIT,
        "concurrency_limited": K.CONCURRENCY,
        "concurrency_limit_exceeded": K.CONCURRENCY,
        "model_not_found": K.MODEL_UNAVAILABLE,
        "overloaded_error": K.OVERLOADED,
        "context_length_exceeded": K.BAD_REQUEST,
        "invalid_request_error": K.BAD_REQUEST,
        "server_error": K.SERVER,
        "internal_server_error": K.SERVER,
    },
    texts=(
        ("invalid api key", K.AUTHENTICATION),
        ("incorrect api key", K.AUTHENTICATION),
        ("exceeded your current quota", K.QUOTA),
        ("insufficient credit", K.QUOTA),
        ("concurrency limit", K.CONCURRENCY),
        ("too many concurrent", K.CONCURRENCY),
        ("rate limit", K.RATE_LIMIT),
        ("over capacity", K.OVERLOADED),
        ("overloaded", K.OVERLOADED),
        ("service unavailable", K.OVERLOADED),
        ("internal server error", K.SERVER),
    ),
    statuses={
        400: K.BAD_REQUEST,
        401: K.AUTHENTICATION,
        402: K.QUOTA,
        403: K.PERMISSION,
        404: K.MODEL_UNAVAILABLE,
        407: K.LOCAL,  # our own proxy wants a login
        408: K.SERVER,
        409: K.SERVER,
        410: K.MODEL_UNAVAILABLE,
        425: K.OVERLOADED,
        429: K.RATE_LIMIT,
        499: K.LOCAL,  # we hung up
        500: K.SERVER,
        502: K.SERVER,
        503: K.OVERLOADED,
        504: K.SERVER,
        529: K.OVERLOADED,
    },
    closes={
        1008: K.PERMISSION,
        1009: K.BAD_REQUEST,
        1011: K.SERVER,
        1012: K.OVERLOADED,
        1013: K.OVERLOADED,
        1014: K.SERVER,
        3000: K.AUTHENTICATION,
        3003: K.PERMISSION,
        4001: K.AUTHENTICATION,
        4003: K.PERMISSION,
        4029: K.RATE_LIMIT,
    },
)
