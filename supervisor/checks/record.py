"""What a check found, as the `checks` hash keeps it (one field per provider and source, TTL 120 s)."""

from __future__ import annotations

import msgspec


class CheckRecord(msgspec.Struct, frozen=True):
    """The newest result of one check. `source`: `api` (host and key) or `status_page`. `at_ms`: Redis TIME.

    ok None: it said nothing either way. every_s: how often it is looked at; much older than that is stale.
    """

    provider: str
    source: str
    ok: bool | None
    detail: str
    at_ms: int
    took_ms: int = 0
    every_s: float = 30.0

    @property
    def field(self) -> str:
        """Its field in the hash."""
        return f"{self.provider}:{self.source}"


_decoder = msgspec.json.Decoder(CheckRecord)


def encode(record: CheckRecord) -> bytes:
    """JSON: people look at these by hand."""
    return msgspec.json.encode(record)


def decode(raw: bytes) -> CheckRecord | None:
    """A record, or None when it cannot be read."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
