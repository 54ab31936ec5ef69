"""Who is asking: bearer tokens with the roles viewer < operator < admin.

Rules, held by tests:
- Redis holds SHA-256 digests only; digests are compared in constant time, all of them, every time.
- Records are read at most once a second, so a revoked token is refused within a second.
- Without any token, and only when listening on loopback, a caller from this machine that names this machine
  in `Host` and came through no proxy is an admin. A page in a browser whose name was re-bound to 127.0.0.1
  names another host and is refused. A process that has once seen a token never opens again.
- Redis not answering never opens anything: the last known records count, or nobody is let in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import redis.exceptions

from supervisor.api.problems import Problem, redis_down
from supervisor.wire.messages import TokenRecord
from supervisor.wire.vocabulary import TokenRole

if TYPE_CHECKING:
    from supervisor.api.records import Records
    from supervisor.settings import SupervisorSettings

CACHE_S = 1.0
TOKEN_PREFIX = "lks_"  # noqa: S105 - a prefix by which secret scanners know our tokens
COOKIE = "supervisor_token"
_RANK: Final = {TokenRole.VIEWER: 0, TokenRole.OPERATOR: 1, TokenRole.ADMIN: 2}
_PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_REDIS_ERRORS: Final = (redis.exceptions.RedisError, OSError, TimeoutError)


class Principal(NamedTuple):
    """Who is asking. `id` is what the audit says."""

    id: str
    role: TokenRole

    def may(self, role: TokenRole) -> bool:
        """Whether this principal has `role` or one that includes it."""
        return _RANK[self.role] >= _RANK[role]


LOCAL: Final = Principal("local", TokenRole.ADMIN)


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex. Tokens are 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def new_token() -> str:
    """A new secret token."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def host_name(header: str) -> str:
    """The name in a `Host` header without its port, lower case; brackets of IPv6 addresses removed."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def is_loopback(host: str) -> bool:
    """Whether an address or host name means this machine."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        # A socket for both families shows IPv4 peers as mapped addresses; Python 3.11 does not look through them.
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback
    except ValueError:
        return False


class _Known(NamedTuple):
    records: tuple[TokenRecord, ...]
    at_ms: int
    read_mono: float


class TokenBook:
    """The tokens of the fleet as this process knows them."""

    def __init__(self, records: Records, settings: SupervisorSettings) -> None:
        self._records = records
        self._settings = settings
        self._known: _Known | None = None
        self._next_read_mono = 0.0
        self._reading = asyncio.Lock()
        self._closed_for_good = False
        admin = settings.admin_token
        self._own: dict[str, Principal] = {}
        if admin is not None:
            self._own[digest(admin.get_secret_value())] = Principal("admin-token", TokenRole.ADMIN)

    def add_own(self, token: str, token_id: str) -> None:
        """Know an admin token that is not in Redis (yet): the one made at the first start."""
        self._own[digest(token)] = Principal(token_id, TokenRole.ADMIN)

    async def any_token(self) -> bool:
        """Whether there is any token at all. Raises `Problem` when that cannot be known."""
        known = await self._read()
        if known.records or self._own:
            self._closed_for_good = True
        return self._closed_for_good

    async def _read(self) -> _Known:
        if self._known is not None and (self._reading.locked() or time.monotonic() < self._next_read_mono):
            return self._known
        # One reads, all others of the first moment wait for it.
        async with self._reading:
            if time.monotonic() >= self._next_read_mono:
                try:
                    records = await self._records.tokens()
                    at_ms = await self._records.now_ms()
                    self._known = _Known(tuple(records), at_ms, time.monotonic())
                except _REDIS_ERRORS:
                    pass  # what was known holds on; who knows nothing yet says so below
                self._next_read_mono = time.monotonic() + CACHE_S
            if self._known is None:
                raise redis_down()
            return self._known

    async def principal_of(self, token: str) -> Principal | None:
        """Whose token this is, or None. Raises `Problem` when Redis never said which tokens there are."""
        presented = digest(token)
        found: Principal | None = None
        for own, principal in self._own.items():
            if hmac.compare_digest(own, presented):
                found = principal
        if found is not None:
            return found
        known = await self._read()
        now_ms = known.at_ms + int((time.monotonic() - known.read_mono) * 1000)
        for record in known.records:
            # No early end: how long this takes says nothing about which record matched.
            if hmac.compare_digest(record.sha256, presented) and not 0 < record.expires_at_ms <= now_ms:
                found = Principal(record.id, record.role)
        return found

    async def authenticate(self, headers: Mapping[str, str], peer: str, cookie: str | None) -> Principal:
        """The caller, from `Authorization: Bearer`, the page's cookie, or loopback. Raises `Problem` 401/403."""
        authorization = headers.get("authorization", "")
        scheme, _, value = authorization.partition(" ")
        token = value.strip() if scheme.lower() == "bearer" else ""
        token = token or (cookie or "")
        if token:
            principal = await self.principal_of(token)
            if principal is not None:
                return principal
            raise _unauthorized("the token is unknown, expired or revoked", error="invalid_token")
        if authorization:
            raise _unauthorized("the Authorization header must be `Bearer <token>`", error="invalid_request")
        # Which of these holds is known without Redis, so a caller from outside costs no read.
        if not self._settings.loopback or not is_loopback(peer) or any(h in headers for h in _PROXY_HEADERS):
            raise _unauthorized("a bearer token is needed")
        if await self.any_token():
            raise _unauthorized("a bearer token is needed")
        host = host_name(headers.get("host", ""))
        if not is_loopback(host) and host not in self._settings.extra_hosts:
            raise Problem(
                403,
                "host-not-allowed",
                "without tokens only requests that name this machine in Host are served",
                remedy="use http://127.0.0.1 or http://localhost, add the name to SUPERVISOR_ALLOWED_HOSTS, "
                "or make a token with `supervisor token create`",
            )
        return LOCAL


def _unauthorized(detail: str, error: str = "") -> Problem:
    challenge = 'Bearer realm="livekit-supervisor"' + (f', error="{error}"' if error else "")
    return Problem(
        401,
        "unauthorized",
        detail,
        remedy="send `Authorization: Bearer <token>`; an admin makes tokens with `supervisor token create`",
        headers={"WWW-Authenticate": challenge},
    )
