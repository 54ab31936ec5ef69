"""What a command asks for, checked again and made into values. Pure: the leader carries them out.

Every argument comes over Redis, so nothing of it is believed; what is wrong is a `Refusal` with words for the
operator, never an exception.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from supervisor.core.inputs import Input, OverrideCleared, OverrideSet, PolicySet, ProbeAsked
from supervisor.core.policy import PolicyError, check_scope, check_values
from supervisor.runtime.kept import KeptBook
from supervisor.wire.codec import encode
from supervisor.wire.keys import BY_NAME, check_worker
from supervisor.wire.messages import Command, OverrideRecord, PolicyRecord, TokenRecord
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import OverrideState, TokenRole

Scalar = str | int | float | bool | None
MAX_OVERRIDE_S: Final = 86_400
DEFAULT_OVERRIDE_S: Final = 600
MAX_TOKEN_S: Final = 10 * 366 * 86_400
_NOT_RULES: Final = frozenset({"scope", "reason", "if_version"})


class Refusal(NamedTuple):
    """The command cannot be done. `detail` says what to change."""

    status: int
    detail: str


class Change(NamedTuple):
    """A record of what operators set changes: store it, tell the engine, answer. `record` None removes it."""

    table: str
    field: str
    record: bytes | None
    inputs: tuple[Input, ...]
    subject: str
    detail: str


class Ask(NamedTuple):
    """The engine is asked for something; nothing is stored."""

    inputs: tuple[Input, ...]
    subject: str
    detail: str


class Drain(NamedTuple):
    """A worker is told to take no more calls."""

    worker: str
    reason: str


Plan = Refusal | Change | Ask | Drain


class Known(NamedTuple):
    """What the leader knows that a command may name."""

    targets: frozenset[str]
    workers: frozenset[str]


class _Wrong(ValueError):
    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class _Args:
    """Arguments by name, with errors that say what was wrong."""

    def __init__(self, args: Mapping[str, Scalar]) -> None:
        self.all = args

    def text(self, name: str, most: int, *, least: int = 1, default: str | None = None) -> str:
        value = self.all.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise _Wrong(f"{name} must be a text of {least} to {most} characters")
        if any(unicodedata.category(char) in {"Cc", "Cs"} for char in value):
            raise _Wrong(f"{name} must not hold control characters")
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        value = self.all.get(name, default)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Wrong(f"{name} must be a whole number from {low} to {high}")
        return value

    def check_version(self, current: int) -> None:
        wanted = self.all.get("if_version")
        if wanted is not None and wanted != current:
            raise _Wrong(f"it has changed since: version {current} is in force", 412)


def _override_scope(args: _Args) -> str:
    scope = args.text("scope", 200)
    kind, _, provider = scope.partition(":")
    if kind == "provider":
        if not 1 <= len(provider) <= 64 or ":" in provider or "/" in provider:
            raise _Wrong("scope: a provider's name is 1 to 64 characters without : and /")
        return scope
    try:
        parse_target(scope)
    except TargetError as exc:
        raise _Wrong(f"scope: {exc}") from None
    return scope


def _full(book: KeptBook, table: str, field: str) -> None:
    limit = BY_NAME[table].max_len or 1
    if field not in book.tables[table] and len(book.tables[table]) >= limit:
        raise _Wrong(f"there are {limit} already; remove some first", 409)


def _override_set(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    scope = _override_scope(args)
    try:
        state = OverrideState(args.text("state", 64))
    except ValueError:
        raise _Wrong(f"state must be one of {', '.join(OverrideState)}") from None
    reason = args.text("reason", 300)
    ttl_s = args.whole("ttl_s", 1, MAX_OVERRIDE_S, DEFAULT_OVERRIDE_S)
    before = book.record("override", scope, OverrideRecord)
    version = before.version if before is not None else 0
    args.check_version(version)
    _full(book, "override", scope)
    record = OverrideRecord(
        scope, state, reason, command.actor, now_ms, now_ms + ttl_s * 1000, version=version + 1
    )
    return Change(
        "override", scope, encode(record), (OverrideSet(record),), scope, f"{state}: {reason}"[:300]
    )


def _override_clear(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    scope = _override_scope(args)
    before = book.record("override", scope, OverrideRecord)
    if before is None and scope not in book.tables["override"]:
        return Refusal(404, f"there is no override of {scope}")
    args.check_version(before.version if before is not None else 0)
    return Change("override", scope, None, (OverrideCleared(scope, command.actor),), scope, "cleared")


def _policy_scope(args: _Args) -> str:
    try:
        return check_scope(args.text("scope", 210))
    except PolicyError as exc:
        raise _Wrong(str(exc)) from None


def _policy_set(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    scope = _policy_scope(args)
    values: dict[str, float | int | bool] = {}
    for name, value in args.all.items():
        if name in _NOT_RULES:
            continue
        if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
            raise _Wrong(f"{name[:64]} must be a number or a switch")
        values[name] = value
    if not values:
        raise _Wrong("name at least one rule; to go back to the defaults, delete the policy")
    try:
        check_values(values)
    except PolicyError as exc:
        raise _Wrong(str(exc)[:300], 422) from None
    before = book.record("policy", scope, PolicyRecord)
    version = before.version if before is not None else 0
    args.check_version(version)
    _full(book, "policy", scope)
    reason = args.text("reason", 300, least=0, default="")
    record = PolicyRecord(scope, values, command.actor, now_ms, version + 1, reason)
    detail = ", ".join(f"{name}={value}" for name, value in values.items())[:300]
    return Change("policy", scope, encode(record), (PolicySet(scope, values),), scope, detail)


def _policy_clear(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    scope = _policy_scope(args)
    before = book.record("policy", scope, PolicyRecord)
    if before is None and scope not in book.tables["policy"]:
        return Refusal(404, f"there is no policy for {scope}")
    args.check_version(before.version if before is not None else 0)
    return Change("policy", scope, None, (PolicySet(scope, {}),), scope, "back to the defaults")


def _probe(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    target = args.text("target", 200)
    if target not in known.targets:
        return Refusal(404, f"no worker has reported {target}")
    return Ask((ProbeAsked(target, command.actor),), target, "probe asked for")


def _drain(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    try:
        worker = check_worker(args.text("worker", 128))
    except ValueError as exc:
        raise _Wrong(str(exc)) from None
    if worker not in known.workers:
        return Refusal(404, f"no worker {worker} is there")
    return Drain(worker, args.text("reason", 300, least=0, default=""))


def _token_set(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    token_id = args.text("id", 128)
    sha256 = args.text("sha256", 64, least=64).lower()
    if any(char not in "0123456789abcdef" for char in sha256):
        raise _Wrong("sha256 must be 64 hex digits")
    try:
        role = TokenRole(args.text("role", 32))
    except ValueError:
        raise _Wrong(f"role must be one of {', '.join(TokenRole)}") from None
    expires_at_ms = args.whole("expires_at_ms", 0, 2**52, 0)
    ttl_s = args.whole("ttl_s", 0, MAX_TOKEN_S, 0)
    if ttl_s:
        expires_at_ms = now_ms + ttl_s * 1000
    _full(book, "tokens", token_id)
    note = args.text("note", 300, least=0, default="")
    record = TokenRecord(token_id, sha256, role, note, now_ms, expires_at_ms)
    return Change("tokens", token_id, encode(record), (), token_id, f"{role}: {note}"[:300])


def _token_delete(command: Command, args: _Args, book: KeptBook, known: Known, now_ms: int) -> Plan:
    token_id = args.text("id", 128)
    if token_id not in book.tables["tokens"]:
        return Refusal(404, f"there is no token {token_id}")
    return Change("tokens", token_id, None, (), token_id, "revoked")


_OPS: Final[dict[str, Callable[[Command, _Args, KeptBook, Known, int], Plan]]] = {
    "override.set": _override_set,
    "override.clear": _override_clear,
    "policy.set": _policy_set,
    "policy.clear": _policy_clear,
    "probe": _probe,
    "drain": _drain,
    "token.set": _token_set,
    "token.delete": _token_delete,
}
OPS: Final = frozenset(_OPS)


def plan(command: Command, book: KeptBook, known: Known, now_ms: int) -> Plan:
    """What to do about a command. Never raises."""
    handler = _OPS.get(command.op)
    if handler is None:
        return Refusal(400, "no such command; replicas and leader must be of one version")
    try:
        return handler(command, _Args(command.args), book, known, now_ms)
    except _Wrong as exc:
        return Refusal(exc.status, str(exc))
