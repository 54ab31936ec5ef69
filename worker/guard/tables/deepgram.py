"""Deepgram: `err_code` in the body or `dg-error`; a 429 at the handshake is its concurrency limit."""

from __future__ import annotations

from supervisor.wire.vocabulary import FaultKind as K
from worker.guard.tables.shape import Table

TABLE = Table(
    codes={
        "invalid_auth": K.AUTHENTICATION,
        "insufficient_permissions": K.PERMISSION,
        "asr_payment_required": K.QUOTA,
        "payment_required": K.QUOTA,
        "too_many_requests": K.CONCURRENCY,
        "net-0000": K.SERVER,
        "net-0001": K.LOCAL,  # ten seconds without audio from us
        "net-0002": K.SERVER,
        "data-0000": K.BAD_REQUEST,
    },
    texts=(
        ("net-0001", K.LOCAL),
        ("net-0000", K.SERVER),
        ("data-0000", K.BAD_REQUEST),
    ),
    statuses={429: K.CONCURRENCY},
    closes={1008: K.BAD_REQUEST},
)
