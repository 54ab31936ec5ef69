"""Groq, from its error reference: codes in `error.code`, 498 is "flex tier over capacity"."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind as K
from worker.guard.tables.shape import Table

TABLE = Table(
    codes={
        "invalid_api_key": K.AUTHENTICATION,
        "rate_limit_exceeded": K.RATE_LIMIT,
        "capacity_exceeded": K.OVERLOADED,
        "model_not_found": K.MODEL_UNAVAILABLE,
        "model_decommissioned": K.MODEL_UNAVAILABLE,
        "model_not_active": K.MODEL_UNAVAILABLE,
        "model_terms_required": K.PERMISSION,
        "model_permission_blocked_org": K.PERMISSION,
        "model_permission_blocked_project": K.PERMISSION,
        "organization_restricted": K.AUTHENTICATION,
        "blocked_api_access": K.QUOTA,  # the spend limit the owner has set
        "spend_limit_reached": K.QUOTA,
        "context_length_exceeded": K.BAD_REQUEST,
        "tool_use_failed": K.BAD_REQUEST,
        "json_validate_failed": K.BAD_REQUEST,
        "internal_server_error": K.SERVER,
        "service_unavailable": K.OVERLOADED,
    },
    texts=(
        ("spend alert", K.QUOTA),
        ("spend limit", K.QUOTA),
        ("over capacity", K.OVERLOADED),
    ),
    statuses={498: K.OVERLOADED},
)
