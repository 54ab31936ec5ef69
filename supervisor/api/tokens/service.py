"""Making, listing and revoking tokens, and the first admin token of a supervisor that needs one."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import structlog

from supervisor.api.auth import digest, new_token
from supervisor.api.problems import Problem
from supervisor.wire.vocabulary import TokenRole

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.api.auth import TokenBook
    from supervisor.api.commands import Commands
    from supervisor.settings import SupervisorSettings

log = structlog.stdlib.get_logger(__name__)

MAX_TOKENS = 256
_RETRY_S = 2.0


async def make(
    commands: Commands, actor: str, role: TokenRole, note: str, ttl_s: int | None, *, token: str | None = None
) -> tuple[str, str]:
    """Make a token through the leader: its id and the token itself, which nobody can see again."""
    token = token or new_token()
    token_id = "tok-" + secrets.token_hex(6)
    await commands.send(
        "token.set",
        actor,
        {"id": token_id, "sha256": digest(token), "role": role.value, "note": note, "ttl_s": ttl_s or 0},
    )
    return token_id, token


async def first_token(
    book: TokenBook, commands: Commands, settings: SupervisorSettings, say: Callable[[str], None]
) -> None:
    """Listening beyond loopback without any token: make an admin token, say it once, and keep its digest.

    It works at once in this process; the leader keeps it as soon as there is one. Waits for Redis first:
    tokens that are already there must be seen before one more is made.
    """
    if settings.loopback:
        return
    while True:
        try:
            if await book.any_token():
                return
            break
        except Problem:
            await asyncio.sleep(_RETRY_S)
    token = new_token()
    book.add_own(token, "first-admin")
    say(f"no tokens yet; admin token of this fleet, shown only once: {token}")
    log.warning("made a first admin token", action="auth.first_token")
    while True:
        try:
            await make(commands, "first-admin", TokenRole.ADMIN, "made at the first start", None, token=token)
            return
        except Problem as problem:
            log.info("the first token waits for a leader", action="auth.first_token_waits", code=problem.code)
            await asyncio.sleep(_RETRY_S)
