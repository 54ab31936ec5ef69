"""Target ids: `role:provider:model`, how they are made, read, and written in paths and Redis keys."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from supervisor.wire.vocabulary import Role

MAX_TARGET_BYTES = 200
_MAX_PROVIDER = 64


class TargetError(ValueError):
    """A target id is not `role:provider:model` (role stt, llm, tts or realtime; at most 200 bytes)."""


class Target(NamedTuple):
    """A target id taken apart. The model may hold colons, slashes and any letters."""

    role: Role
    provider: str
    model: str

    @property
    def id(self) -> str:
        return f"{self.role}:{self.provider}:{self.model}"


def make_target(role: Role | str, provider: str, model: str) -> str:
    """The id of a target. Raises `TargetError` when a part is missing, has control characters, or is too long."""
    target_id = f"{role}:{provider}:{model}"
    parse_target(target_id)
    return target_id


@lru_cache(maxsize=4096)
def parse_target(target_id: str) -> Target:
    """Take an id apart. Raises `TargetError`; the result is cached (ids are few: 256 a fleet)."""
    if len(target_id.encode("utf-8", "surrogatepass")) > MAX_TARGET_BYTES:
        raise TargetError(f"target id is longer than {MAX_TARGET_BYTES} bytes")
    parts = target_id.split(":", 2)
    if len(parts) != 3 or not all(parts):
        raise TargetError("target id must be role:provider:model")
    role, provider, model = parts
    if not target_id.isprintable():
        raise TargetError("target id has characters that cannot be printed")
    if len(provider) > _MAX_PROVIDER or "/" in provider:
        raise TargetError("provider must be at most 64 characters without '/'")
    try:
        return Target(Role(role), provider, model)
    except ValueError:
        raise TargetError("role must be one of stt, llm, tts, realtime") from None


def escape_path(target_id: str) -> str:
    """Write an id as one REST path segment: `~` as `~0`, `/` as `~1` (RFC 6901)."""
    return target_id.replace("~", "~0").replace("/", "~1")


def unescape_path(segment: str) -> str:
    """Read a REST path segment back; the inverse of `escape_path`."""
    return segment.replace("~1", "/").replace("~0", "~")


def key_hash(target_id: str) -> str:
    """16 hex digits that stand for the id in Redis keys."""
    return hashlib.blake2b(target_id.encode(), digest_size=8).hexdigest()
