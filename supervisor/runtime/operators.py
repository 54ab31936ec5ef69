"""Carrying out what operators ask for. A change is on the disk and in Redis before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, NamedTuple

import structlog

from supervisor.core.inputs import OverrideCleared
from supervisor.runtime.inboxes import DEAD_BYTES, Poison, entry_message, id_ms
from supervisor.runtime.reign import KEPT_FILE, Reign
from supervisor.runtime.requests import OPS, Ask, Change, Drain, Known, Refusal, plan
from supervisor.store import writes
from supervisor.store.clients import REDIS_TROUBLE
from supervisor.store.statedir import StateDirError
from supervisor.wire.codec import decode, encode
from supervisor.wire.errors import WireError
from supervisor.wire.messages import Audit, Command, Directive, Reply
from supervisor.wire.vocabulary import DirectiveKind

if TYPE_CHECKING:
    from supervisor.runtime.kept import KeptBook

log = structlog.stdlib.get_logger(__name__)

# Who sent a command that says no expiry waits no longer than this.
STALE_MS = 10_000
DRAIN_VALID_MS = 60_000


class Unstored(Exception):
    """The change could not be written to SUPERVISOR_STATE_DIR; nothing changed."""


async def handle(reign: Reign, entry_id: bytes, flat: list[bytes] | None, redis_ms: int) -> None:
    """One entry of `commands`. Raises what Redis raises, `Fenced` and `Emptied`; never because of the command."""
    reign.inboxes.cursors[reign.commands_key] = entry_id
    data = entry_message(flat)
    try:
        command = decode(data, Command)
    except WireError as exc:
        reign.counters.unreadable[exc.reason] += 1
        reign.hands.dead(Poison("commands", entry_id.decode(), exc.reason, data[:DEAD_BYTES]))
        return
    late = (
        command.expires_at_ms < redis_ms if command.expires_at_ms else redis_ms - id_ms(entry_id) > STALE_MS
    )
    if late or command.id in reign.seen_commands:
        log.info("command stepped over", action="leader.command_late", late=late)
        return
    reign.seen_commands.append(command.id)
    known_op = command.op if command.op in OPS else "unknown"
    reign.counters.commands[known_op] += 1
    done = await _carry_out(reign, command)
    if done.status >= 400:
        reign.counters.commands_refused[known_op] += 1
    detail = done.detail[:300]
    reign.hands.audit(Audit(redis_ms, command.actor, command.op, done.subject[:200], detail, done.status))
    if done.trouble is not None:
        raise done.trouble
    # What follows from it is published, and written down, before anybody is told that it is so.
    await reign.hands.do()
    reply = Reply(command.id, done.status, detail, reign.hands.revision)
    with contextlib.suppress(ValueError):  # an id that cannot be part of a key has nobody waiting
        await writes.reply(reign.client, reign.keys, command.id, encode(reply))


class _Done(NamedTuple):
    """How a command ended. trouble: it holds, but Redis went away, so its sender cannot be told."""

    status: int
    detail: str
    subject: str = ""
    trouble: Exception | None = None


async def _carry_out(reign: Reign, command: Command) -> _Done:
    now_ms = reign.clock.now_ms
    wanted = plan(command, reign.book, _known(reign), now_ms)
    if isinstance(wanted, Refusal):
        return _Done(wanted.status, wanted.detail)
    if isinstance(wanted, Drain):
        redis_ms = reign.clock.to_redis(now_ms)
        directive = Directive(
            f"drain-{secrets.token_hex(8)}", DirectiveKind.DRAIN, reign.fence.epoch, redis_ms,
            redis_ms + DRAIN_VALID_MS, reason=wanted.reason,
        )  # fmt: skip
        reign.hands.directive(directive, wanted.worker)
        return _Done(202, "told to drain", wanted.worker)
    if isinstance(wanted, Ask):
        for item in wanted.inputs:
            reign.feed(item)
        return _Done(202, wanted.detail, wanted.subject)
    try:
        await change(reign, wanted, command.actor)
    except Unstored:
        return _Done(503, "SUPERVISOR_STATE_DIR could not be written; nothing changed", wanted.subject)
    except (writes.Emptied, *REDIS_TROUBLE) as exc:
        return _Done(202, f"{wanted.detail} (Redis was away; its sender was not told)", wanted.subject, exc)
    return _Done(200, wanted.detail, wanted.subject)


def _known(reign: Reign) -> Known:
    view = reign.engine.view(reign.state, reign.clock.now_ms, reign.context.replica)
    return Known(frozenset(target.id for target in view.targets), frozenset(reign.inboxes.workers))


async def change(reign: Reign, wanted: Change, actor: str) -> None:
    """Store a change, then tell the engine. Raises `Unstored`, `Fenced`, `Emptied`, or what Redis raises."""
    before = reign.book
    after = before.changed(reign.fence.epoch, wanted.table, wanted.field, wanted.record)
    await write_book(reign, after)
    history = encode(Audit(reign.clock.now_ms, actor, wanted.table, wanted.subject[:200], wanted.detail))
    try:
        await writes.keep(
            reign.client, reign.keys, reign.fence, name=wanted.table, mark=str(after.mark),
            field=wanted.field, record=wanted.record, history=history,
        )  # fmt: skip
    except writes.Fenced:
        # Not ours to change any more, so our file must not say that it was changed.
        with contextlib.suppress(Unstored):
            await write_book(reign, before)
        raise
    except (writes.Emptied, *REDIS_TROUBLE):
        # On the disk, or about to be written with everything else: Redis gets all of it when it is back.
        reign.refill_due = True
        reign.book = after
        _tell(reign, wanted)
        raise
    reign.book = after
    _tell(reign, wanted)


def _tell(reign: Reign, wanted: Change) -> None:
    for item in wanted.inputs:
        reign.feed(item)


async def write_book(reign: Reign, book: KeptBook) -> None:
    """The book on the disk (fsync), if there is a folder for it. Raises `Unstored`."""
    if reign.state_dir is None:
        return
    try:
        await asyncio.to_thread(reign.state_dir.write, KEPT_FILE, book.encode())
    except StateDirError as exc:
        reign.counters.state_dir_errors += 1
        if not reign.disk_refused:
            log.error("state folder refused a change", action="statedir.failed", error=exc.strerror)
        reign.disk_refused = True
        raise Unstored from None
    reign.disk_refused = False


async def expire(reign: Reign) -> None:
    """Overrides and tokens that have run out leave the book. Their end is in the engine's own hands already."""
    now_ms = reign.clock.now_ms
    over: list[Change] = []
    for scope, record in reign.book.overrides.items():
        if record.expires_at_ms <= now_ms:
            ended = OverrideCleared(scope, "expiry")
            over.append(Change("override", scope, None, (ended,), scope, "ran out"))
    for token_id, token in reign.book.tokens.items():
        if 0 < token.expires_at_ms <= now_ms:
            over.append(Change("tokens", token_id, None, (), token_id, "ran out"))
    for wanted in over:
        op = "override.expired" if wanted.table == "override" else "token.expired"
        with contextlib.suppress(Unstored):
            await change(reign, wanted, "expiry")
            reign.hands.audit(Audit(now_ms, "expiry", op, wanted.subject, wanted.detail))
