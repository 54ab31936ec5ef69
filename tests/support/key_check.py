"""No key may outlive its bound: what a test left in Redis against the table in `supervisor.wire.keys`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from supervisor.wire.keys import KeySpec, KeyType, spec_of

# `XADD MAXLEN ~` trims whole nodes, and a node holds 100 entries by default.
APPROXIMATE_TRIM = 100

_KEY = re.compile(r"\Asv:v1:\{[^{}]+\}:.")


def complaints(client: Any, pattern: str = "*", ignore: Iterable[str] = ()) -> list[str]:
    """One sentence for each key that matches `pattern` and breaks a bound.

    `client` is a `redis.Redis` that answers bytes; `ignore` names rows of the table.
    """
    skipped = set(ignore)
    found: list[str] = []
    for raw in client.scan_iter(match=pattern, count=1_000):
        key = raw.decode(errors="replace")
        if not _KEY.match(key):
            found.append(f"{key}: does not start with sv:v1:{{<fleet>}}:")
            continue
        spec = spec_of(key)
        if spec is None:
            found.append(f"{key}: is in no row of supervisor.wire.keys.KEYS")
        elif spec.name not in skipped:
            found.extend(_check(client, raw, key, spec))
    return sorted(found)


def _check(api: Any, raw: bytes, key: str, spec: KeySpec) -> list[str]:
    kind = str(api.type(raw).decode())
    if kind == "none":  # its TTL ran out since the scan
        return []
    if kind != spec.type.value:
        return [f"{key}: is a {kind}, the table says {spec.type.value}"]
    found: list[str] = []
    if spec.ttl_s is not None:
        ttl_ms = int(api.pttl(raw))
        if ttl_ms == -1:
            found.append(f"{key}: has no TTL, the table says {spec.ttl_s} s")
        elif ttl_ms > spec.ttl_s * 1_000:
            found.append(f"{key}: lives {ttl_ms} ms more, the table says at most {spec.ttl_s} s")
    if spec.max_len is None and spec.ttl_s is None:
        found.append(f"{key}: its row has neither a length nor a TTL")
    if spec.max_len is not None:
        length = _length(api, raw, spec.type)
        slack = APPROXIMATE_TRIM if spec.type is KeyType.STREAM else 0
        if length > spec.max_len + slack:
            found.append(f"{key}: holds {length}, the table says at most {spec.max_len}")
    return found


def _length(api: Any, raw: bytes, kind: KeyType) -> int:
    commands = {KeyType.STREAM: "xlen", KeyType.HASH: "hlen", KeyType.ZSET: "zcard", KeyType.LIST: "llen"}
    return int(getattr(api, commands[kind])(raw)) if kind in commands else 1
