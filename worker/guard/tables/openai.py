"""OpenAI: branch on `error.code`, not on its type (a 429 may mean money)."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind as K
from worker.guard.tables.shape import Table

TABLE = Table(
    codes={
        "invalid_api_key": K.AUTHENTICATION,
        "invalid_organization": K.AUTHENTICATION,
        "account_deactivated": K.AUTHENTICATION,
        "ip_not_authorized": K.PERMISSION,
        "unsupported_country_region_territory": K.PERMISSION,
        "insufficient_quota": K.QUOTA,
        "billing_hard_limit_reached": K.QUOTA,
        "billing_not_active": K.QUOTA,
        "access_terminated": K.AUTHENTICATION,
        "credit_balance_too_low": K.QUOTA,
        "usage_limit_reached": K.QUOTA,
        "rate_limit_exceeded": K.RATE_LIMIT,
        "slow_down": K.RATE_LIMIT,
        "model_not_found": K.MODEL_UNAVAILABLE,
        "context_length_exceeded": K.BAD_REQUEST,
        "content_filter": K.BAD_REQUEST,
        "content_policy_violation": K.BAD_REQUEST,
        "server_error": K.SERVER,
        "engine_overloaded": K.OVERLOADED,
        "overloaded": K.OVERLOADED,
    },
    texts=(
        ("exceeded your current quota", K.QUOTA),
        ("billing", K.QUOTA),
        ("overloaded", K.OVERLOADED),
    ),
)
