"""How a new leader begins: load what the last one left, catch up, say where reports are missing, publish once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from supervisor.core.inputs import GapSeen, OverrideCleared, OverrideSet, PolicySet, TookOver
from supervisor.runtime.history import History
from supervisor.runtime.inboxes import FIRST, id_order
from supervisor.runtime.kept import KeptBook, Mark, decode_book
from supervisor.runtime.reign import ENGINE_FILE, KEPT_FILE
from supervisor.runtime.saved import Saved, decode_saved
from supervisor.store import lease as leases
from supervisor.store import reads, writes
from supervisor.store.lease import Fence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.runtime.reign import Reign
    from supervisor.store.lease import Lease
    from supervisor.store.statedir import StateDir

log = structlog.stdlib.get_logger(__name__)

CATCH_UP_S = 1.0
CATCH_UP_COUNT = 200
# Nobody led for longer than this: what was reported meanwhile is too old to be judged by.
NOBODY_LED_MS = 5_000


async def load_saved(state_dir: StateDir | None, in_redis: bytes | None) -> tuple[Saved | None, bool]:
    """The newer of the two states that the last leader left, and whether one was there that cannot be read."""
    on_disk = await asyncio.to_thread(state_dir.read, ENGINE_FILE) if state_dir is not None else None
    found = [saved for saved in (decode_saved(in_redis), decode_saved(on_disk)) if saved is not None]
    lost = not found and (in_redis is not None or on_disk is not None)
    return max(found, key=lambda saved: saved.order, default=None), lost


def load_engine(reign: Reign, saved: Saved | None) -> bool:
    """The engine's state, or a new one. False when there was one that this build cannot read."""
    if saved is not None:
        try:
            reign.state = reign.engine.load(saved.engine)
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with it, a fleet needs a leader
            log.error("engine state unreadable", action="leader.state_unreadable", error=type(exc).__name__)
        else:
            return True
    reign.state = reign.engine.new_state()
    return saved is None


async def load_book(reign: Reign, redis_mark: str) -> None:
    """What operators set: from Redis or from the disk, whichever knows the newer change; the other is corrected."""
    in_redis = KeptBook(Mark.parse(redis_mark), await reads.kept(reign.client, reign.keys))
    state_dir = reign.state_dir
    on_disk = None
    if state_dir is not None:
        on_disk = decode_book(await asyncio.to_thread(state_dir.read, KEPT_FILE))
    if on_disk is not None and on_disk.mark > in_redis.mark:
        reign.book, reign.refill_due = on_disk, True
        log.warning(
            "operators' records refilled from disk", action="leader.kept_refilled", mark=str(on_disk.mark)
        )
        return
    reign.book = in_redis


def _apply_book(reign: Reign, saved: Saved | None) -> None:
    """Make the engine agree with the book, whatever its state says."""
    overrides, policies = reign.book.overrides, reign.book.policies
    for scope in saved.overrides if saved is not None else ():
        if scope not in overrides:
            reign.feed(OverrideCleared(scope, "takeover"))
    for scope in saved.policies if saved is not None else ():
        if scope not in policies:
            reign.feed(PolicySet(scope, {}))
    for record in policies.values():
        reign.feed(PolicySet(record.scope, record.values))
    for record in overrides.values():
        if record.expires_at_ms > reign.clock.now_ms:
            reign.feed(OverrideSet(record))


async def raise_epoch(reign: Reign, floor: int) -> None:
    """Go on under a higher epoch. Raises `Fenced` when another replica was quicker."""
    settings = reign.settings
    got = await leases.acquire(
        reign.client, reign.keys, token=reign.fence.token, owner=settings.replica, ttl_ms=settings.lease_ttl_ms,
        floor=max(floor, reign.fence.epoch + 1),
    )  # fmt: skip
    if not got.taken:
        raise writes.Fenced
    reign.hands.fence = Fence(reign.fence.token, got.epoch)


async def publish_all(reign: Reign, revision: int) -> None:
    """Tell the engine its epoch and write the whole strategy, and whatever else Redis lacks."""
    hands = reign.hands
    if reign.refill_due:
        await writes.refill(
            reign.client, reign.keys, hands.fence, mark=str(reign.book.mark), kept=reign.book.tables
        )
        reign.refill_due = False
    hands.drop_unpublished()
    reign.feed(TookOver(hands.fence.epoch, max(revision, hands.revision)))
    strangers = await reads.strategy_targets(reign.client, reign.keys)
    hands.publish_all_anew(revision, strangers)
    await hands.do()


async def take_over(
    reign: Reign, lease: Lease, saved: Saved | None, lost: bool, turn: Callable[[int, int], Awaitable[int]]
) -> None:
    """Everything up to the one publication. `turn(count, block_ms)` reads and feeds a batch; gives its size."""
    began_mono = time.monotonic()
    if not load_engine(reign, saved):
        saved, lost = None, True
    await load_book(reign, lease.kept)
    if lease.missing and not reign.book.empty:
        reign.refill_due = True
    # The clock first: every input below is stamped with it.
    head = await reads.strategy_head(reign.client, reign.keys)
    first = await reign.follower.read({}, 1, 0)
    moment = reign.clock.read(first.now_ms, time.monotonic())
    reign.history = History(moment.now_ms)
    revision = max(lease.revision, saved.revision if saved else 0, head.revision if head else 0)
    gaps = [moment.gap.value] if moment.gap is not None else []
    if lost:
        gaps.append("state_lost")
    if lease.missing and saved is not None:
        gaps.append("emptied")
    if saved is not None and moment.now_ms - saved.at_ms > NOBODY_LED_MS:
        gaps.append("nobody_led")
    if saved is not None:
        reign.inboxes.restore(saved.inboxes, time.monotonic())
    if await _trimmed(reign):
        gaps.append("trimmed")
    index = await reads.workers(reign.client, reign.keys)
    reign.inboxes.sync(index, time.monotonic())
    for gap in gaps:
        reign.counters.gaps[gap] += 1
        reign.feed(GapSeen(gap))
    _apply_book(reign, saved)
    while time.monotonic() - began_mono < CATCH_UP_S and await turn(CATCH_UP_COUNT, 0):
        pass
    # What workers obey now may come from an epoch that Redis has forgotten.
    records = await reads.worker_records(reign.client, reign.keys, index)
    highest = max([reign.inboxes.highest_epoch, *(record.epoch for record in records.values())], default=0)
    ours = reign.fence.epoch
    if ours <= highest <= reign.inboxes.believable(moment.redis_ms):
        await raise_epoch(reign, highest + 1)
    await publish_all(reign, revision)
    reign.counters.takeovers += 1
    log.info(
        "leads",
        action="leader.took_over",
        epoch=reign.fence.epoch,
        revision=reign.hands.revision,
        gaps=gaps,
        took_ms=round((time.monotonic() - began_mono) * 1000),
    )


async def _trimmed(reign: Reign) -> bool:
    """Whether a stream has lost entries that nobody had read: the one at the cursor is gone, later ones are not."""
    boxes = [box for box in reign.inboxes.silent(time.monotonic(), 0.0) if box.cursor != FIRST]
    edges = await reads.edges(reign.client, [(box.key.decode(), box.cursor) for box in boxes])
    return any(
        edge.first is not None and not edge.kept and id_order(edge.first) > id_order(box.cursor)
        for box, edge in zip(boxes, edges, strict=True)
    )
