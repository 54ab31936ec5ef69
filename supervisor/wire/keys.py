"""Every Redis key of contract v1, its type and its bound, as data (docs/contract.md is checked against it).

Rule: a key is made here or nowhere. Every key starts `sv:v1:{<fleet>}:`; the braces keep a fleet in one
hash slot. Streams carry a MAXLEN, everything else a TTL or a fixed number of fields.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple

from supervisor.wire.targets import key_hash

# Every stream entry, and every record's hash, holds its one message in the field of this name.
FIELD: Final = "m"

_FLEET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class KeyType(StrEnum):
    STREAM = "stream"
    HASH = "hash"
    ZSET = "zset"
    STRING = "string"
    LIST = "list"
    CHANNEL = "channel"


class KeySpec(NamedTuple):
    """One family of keys. `name` is a pattern with `<part>`s.

    max_len: entries of a stream, fields of a hash or members of a set, at most (None: bounded by ttl_s alone).
    ttl_s: seconds after which it is gone when nobody writes (None: bounded by max_len alone).
    """

    name: str
    type: KeyType
    max_len: int | None
    ttl_s: int | None
    writer: str
    reader: str

    @property
    def pattern(self) -> re.Pattern[str]:
        name = re.sub(r"<[^>]+>", "[^:]+", re.escape(self.name).replace(r"\<", "<").replace(r"\>", ">"))
        return re.compile(name + r"\Z")


S = KeySpec
KEYS: Final[tuple[KeySpec, ...]] = (
    S("in:<worker>", KeyType.STREAM, 1_000, 120, "link", "leader"),
    S("faults", KeyType.STREAM, 50_000, None, "link", "every supervisor"),
    S("strategy", KeyType.HASH, 256 + 1, None, "leader", "links"),
    S("wake", KeyType.CHANNEL, None, None, "leader", "links"),
    S("directive:<worker>", KeyType.STREAM, 100, 120, "leader", "link"),
    S("worker:<worker>", KeyType.HASH, 4, 15, "link", "supervisors"),
    S("workers", KeyType.ZSET, 4_000, None, "link", "supervisors"),
    S("session:<session>", KeyType.HASH, 4, 15, "link", "supervisors"),
    S("sessions", KeyType.ZSET, 100_000, None, "link", "supervisors"),
    S("sessions:ended", KeyType.STREAM, 20_000, None, "link", "supervisors"),
    S("view", KeyType.STRING, None, 10, "leader", "every replica"),
    S("events", KeyType.STREAM, 10_000, None, "leader", "replicas"),
    S("leader", KeyType.HASH, 8, 86_400, "leader", "supervisors"),
    S("state", KeyType.STRING, None, 86_400, "leader", "leader"),
    S("commands", KeyType.STREAM, 1_000, None, "replicas", "leader"),
    S("reply:<command>", KeyType.LIST, 1, 30, "leader", "replica"),
    S("policy", KeyType.HASH, 600, None, "leader", "supervisors"),
    S("policy:history", KeyType.STREAM, 100, None, "leader", "supervisors"),
    S("override", KeyType.HASH, 600, None, "leader", "supervisors"),
    S("override:history", KeyType.STREAM, 100, None, "leader", "supervisors"),
    S("limits", KeyType.HASH, 256, None, "leader", "links"),
    S("limits:history", KeyType.STREAM, 100, None, "leader", "supervisors"),
    S("tokens", KeyType.HASH, 256, None, "leader", "supervisors"),
    S("tokens:history", KeyType.STREAM, 100, None, "leader", "supervisors"),
    S("limit:<name>", KeyType.HASH, 4_000, 86_400, "leader, links (Lua)", "links"),
    S("history:<target>", KeyType.HASH, 720 + 1_440, 90_000, "leader", "pages"),
    S("recording", KeyType.STREAM, 200_000, None, "leader", "preview"),
    S("audit", KeyType.STREAM, 50_000, None, "leader", "supervisors"),
    S("dead", KeyType.STREAM, 1_000, None, "leader", "supervisors"),
    S("checks", KeyType.HASH, 64, 120, "leader", "supervisors"),
)
BY_NAME: Final = {spec.name: spec for spec in KEYS}


class KeyNameError(ValueError):
    """A fleet or worker name cannot be part of a key."""


def check_fleet(fleet: str) -> str:
    """The fleet's name, or `KeyNameError`: 1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit."""
    if not _FLEET.match(fleet):
        raise KeyNameError(
            "fleet must be 1 to 63 characters of a-z 0-9 . _ - and begin with a letter or digit"
        )
    return fleet


def is_worker(worker: str) -> bool:
    """Whether this can be a worker's (or session's) id."""
    return bool(_WORKER.match(worker))


def check_worker(worker: str) -> str:
    """The worker's (or session's) id, or `KeyNameError`: 1 to 128 of A-Z a-z 0-9 . _ -."""
    if not is_worker(worker):
        raise KeyNameError("worker id must be 1 to 128 characters of A-Z a-z 0-9 . _ -")
    return worker


class Keys:
    """The keys of one fleet."""

    __slots__ = ("_p", "fleet")

    def __init__(self, fleet: str) -> None:
        self.fleet = check_fleet(fleet)
        self._p = f"sv:v1:{{{fleet}}}:"

    @property
    def prefix(self) -> str:
        return self._p

    def __call__(self, name: str) -> str:
        """A key without parts, e.g. `keys("strategy")`. Raises `KeyError` when the table has no such name."""
        return self._p + BY_NAME[name].name

    def inbox(self, worker: str) -> str:
        return f"{self._p}in:{check_worker(worker)}"

    def directive(self, worker: str) -> str:
        return f"{self._p}directive:{check_worker(worker)}"

    def worker(self, worker: str) -> str:
        return f"{self._p}worker:{check_worker(worker)}"

    def session(self, session: str) -> str:
        return f"{self._p}session:{check_worker(session)}"

    def reply(self, command: str) -> str:
        return f"{self._p}reply:{check_worker(command)}"

    def limit(self, name: str) -> str:
        return f"{self._p}limit:{key_hash(name)}"

    def history(self, target_id: str) -> str:
        return f"{self._p}history:{key_hash(target_id)}"


def spec_of(key: str) -> KeySpec | None:
    """The row of the table that a full key belongs to, or None."""
    name = re.sub(r"\Asv:v1:\{[^}]*\}:", "", key)
    for spec in KEYS:
        if spec.name == name or spec.pattern.match(name):
            return spec
    return None
