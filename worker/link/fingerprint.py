"""A key's fingerprint: says whether two workers hold the same API key, and nothing else about it."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

# Public on purpose: without a fleet secret it still keeps fingerprints apart from those of other programs.
# Provider keys hold well over 100 random bits, so they cannot be found by trying.
_PUBLIC_SALT: Final = b"livekit-supervisor/key-fingerprint/v1"


def key_fingerprint(key: str, fleet_secret: str | None = None) -> str:
    """HMAC-SHA256 of the key, first 16 hex digits; "" for an empty key.

    All workers of a fleet must use the same secret (or none), or they look as if they held different keys.
    """
    if not key:
        return ""
    salt = fleet_secret.encode() if fleet_secret else _PUBLIC_SALT
    return hmac.new(salt, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
