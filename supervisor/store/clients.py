"""redis-py clients as the supervisor wants them: bytes, a limit on every wait, no retries behind our back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from supervisor.settings import SupervisorSettings

# What a call to Redis may raise when Redis, or the way to it, is in trouble.
REDIS_TROUBLE = (RedisError, OSError, TimeoutError)
BLOCKING_S = 5.0


def make_client(
    url: str, timeout_s: float | None, *, connect_timeout_s: float = 1.0, reconnects: int = 0
) -> redis.asyncio.Redis:
    """A client that answers bytes. timeout_s: longest wait for an answer (None: the caller sets limits).

    reconnects: how often a call whose connection turns out to be dead is sent again. Only for calls that may
    be done twice; a timeout is never retried.
    """
    retry = Retry(NoBackoff(), reconnects, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "socket_keepalive": True,
        "retry": retry,
        # RESP2: one shape of answers on every server and client version that is supported.
        "protocol": 2,
    }
    return cast("redis.asyncio.Redis", cast("Any", redis.asyncio.Redis).from_url(url, **options))


def api_client(settings: SupervisorSettings) -> redis.asyncio.Redis:
    """For REST and pages: a dead connection of the pool is replaced without anyone noticing."""
    return make_client(settings.redis_url.get_secret_value(), settings.redis_timeout_s, reconnects=1)


def blocking_client(settings: SupervisorSettings) -> redis.asyncio.Redis:
    """The same with room for BLPOP and XREAD BLOCK of up to `BLOCKING_S`."""
    limit = BLOCKING_S + settings.redis_timeout_s
    return make_client(settings.redis_url.get_secret_value(), limit, reconnects=1)


def leader_client(settings: SupervisorSettings) -> redis.asyncio.Redis:
    """For the leader: nothing is sent twice unless the leader says so."""
    return make_client(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
