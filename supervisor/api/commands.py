"""Changes go to the leader: a `Command` into `commands`, its `Reply` from `reply:<id>` within 3 s.

A command expires when its waiter gives up: no leader begins it later, behind the caller's back.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, cast

import structlog

from supervisor.api.problems import Problem, no_reply
from supervisor.wire.codec import decode, encode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import BY_NAME, FIELD
from supervisor.wire.messages import Command, Reply

if TYPE_CHECKING:
    from supervisor.runtime.context import SupervisorContext

log = structlog.stdlib.get_logger(__name__)

WAIT_S = 3.0
MAX_WAITING = 32  # each waiter holds a connection of the pool

Scalar = str | int | float | bool | None

_CODES = {
    400: "bad-request",
    404: "not-found",
    409: "conflict",
    412: "precondition-failed",
    422: "invalid",
    503: "unavailable",
}


class Commands:
    """Sends commands and waits for the leader's replies."""

    def __init__(self, context: SupervisorContext) -> None:
        self._context = context
        self._redis = cast("Any", context.redis)
        self._blocking = cast("Any", context.redis_blocking)
        self._waiting = 0

    async def send(self, op: str, actor: str, args: dict[str, Scalar]) -> Reply:
        """The leader's good reply. Raises `Problem`: 504 without a leader, else what the leader answered."""
        if self._waiting >= MAX_WAITING:
            raise Problem(
                503,
                "busy",
                "too many changes are waiting for the leader",
                remedy="send the request again in a moment",
                headers={"Retry-After": "3"},
            )
        self._waiting += 1
        try:
            reply = await self._exchange(op, actor, args)
        finally:
            self._waiting -= 1
        if reply is None:
            log.warning("no leader answered a command", action="api.no_reply", op=op)
            raise no_reply()
        if reply.status >= 400:
            code = _CODES.get(reply.status, "refused")
            raise Problem(reply.status, code, reply.detail or "the leader refused the change")
        return reply

    async def _exchange(self, op: str, actor: str, args: dict[str, Scalar]) -> Reply | None:
        keys = self._context.keys
        command_id = secrets.token_hex(12)
        seconds, micros = cast("tuple[int, int]", await self._redis.time())
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        command = Command(
            id=command_id,
            at_ms=now_ms,
            actor=actor,
            op=op,
            args=args,
            expires_at_ms=now_ms + int(WAIT_S * 1000),
        )
        await self._redis.xadd(
            keys("commands"), {FIELD: encode(command)}, maxlen=BY_NAME["commands"].max_len, approximate=True
        )
        answer = cast(
            "tuple[bytes, bytes] | None", await self._blocking.blpop([keys.reply(command_id)], timeout=WAIT_S)
        )
        if answer is None:
            return None
        try:
            return decode(answer[1], Reply)
        except WireError:
            raise Problem(502, "unreadable-reply", "the leader's reply could not be read") from None
