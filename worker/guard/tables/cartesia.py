"""Cartesia: version 2025-04-16 has words only, 2026-03-01 has `error_code`; 429 is nearly always concurrency."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind as K
from worker.guard.tables.shape import Table

TABLE = Table(
    codes={
        "concurrency_limited": K.CONCURRENCY,
        "concurrency_limit_exceeded": K.CONCURRENCY,
        "rate_limited": K.RATE_LIMIT,
        "quota_exceeded": K.QUOTA,
        "credits_exhausted": K.QUOTA,
        "insufficient_credits": K.QUOTA,
        "unauthorized": K.AUTHENTICATION,
        "invalid_api_key": K.AUTHENTICATION,
        "forbidden": K.PERMISSION,
        "plan_upgrade_required": K.PERMISSION,
        "model_not_found": K.MODEL_UNAVAILABLE,
        "voice_not_found": K.BAD_REQUEST,
        "invalid_request": K.BAD_REQUEST,
        "internal_error": K.SERVER,
        "service_unavailable": K.OVERLOADED,
    },
    texts=(
        ("concurren", K.CONCURRENCY),
        ("too many requests", K.RATE_LIMIT),
        ("credit limit", K.QUOTA),
        ("out of credits", K.QUOTA),
        ("quota", K.QUOTA),
        ("invalid api key", K.AUTHENTICATION),
    ),
)
