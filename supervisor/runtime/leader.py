"""The leader's loop: read entries, feed the engine, carry out its effects at once, tick; until the lease is lost.

Rules: no single entry and no single effect stops the loop; Redis may be away for as long as it likes; the first
write that is refused because another replica leads is the last one.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import ReadOnlyError, ResponseError

from supervisor.core.inputs import Tick
from supervisor.runtime import operators
from supervisor.runtime.chores import Chores
from supervisor.runtime.context import ReplicaRole
from supervisor.runtime.inboxes import Clash, Poison
from supervisor.runtime.takeover import publish_all, raise_epoch, take_over
from supervisor.runtime.tasks import end
from supervisor.store import lease as leases
from supervisor.store import reads, writes
from supervisor.store.clients import REDIS_TROUBLE
from supervisor.wire.messages import Event

if TYPE_CHECKING:
    from supervisor.runtime.board import StatusBoard
    from supervisor.runtime.reign import Reign
    from supervisor.runtime.saved import Saved
    from supervisor.store.lease import Lease

log = structlog.stdlib.get_logger(__name__)

TICK_S = 0.1
READ_COUNT = 200
# A batch this large is handed out in pieces, so that the lease and the pages get their turn.
YIELD_EVERY = 500
# A loop that has not come round for so long does not deserve its lease.
STUCK_S = 5.0
BACKOFF_S = (0.05, 1.0)
# One bump of the epoch per so long, whatever workers claim to have seen.
EPOCH_EVERY_S = 10.0


class Leader:
    """`run` returns when another replica leads; it raises nothing but cancellation."""

    def __init__(self, reign: Reign, board: StatusBoard) -> None:
        self._reign = reign
        self._board = board
        self._chores = Chores(reign)
        self._tick_mono = 0.0
        self._epoch_mono = 0.0
        self._backoff_s = BACKOFF_S[0]
        self._published = False
        self._bug = ""

    async def run(self, lease: Lease, saved: Saved | None, lost: bool) -> None:
        """Take over, then lead. Raises what Redis raises as long as it has not taken over."""
        reign, board = self._reign, self._board
        renewing = asyncio.create_task(self._keep_lease())
        try:
            await take_over(reign, lease, saved, lost, self._read)
            self._show()
            board.role, board.leader = ReplicaRole.LEADER, reign.context.replica
            await self._lead()
        except writes.Fenced:
            reign.counters.leases_lost += 1
            log.warning("another replica leads", action="leader.fenced", epoch=reign.fence.epoch)
        finally:
            await end(renewing)
            await self._chores.finish()

    async def _lead(self) -> None:
        while not self._reign.lost:
            try:
                await self._turn()
                self._backoff_s = BACKOFF_S[0]
            except writes.Fenced:
                raise
            except writes.Emptied:
                self._reign.emptied = True
            except REDIS_TROUBLE as exc:
                if isinstance(exc, ResponseError) and not isinstance(exc, ReadOnlyError):
                    await self._bugs(exc)
                else:
                    await self._trouble(exc)
            except Exception as exc:  # noqa: BLE001 - a bug in one turn must not leave the fleet without a leader
                await self._bugs(exc)
        raise writes.Fenced

    async def _turn(self) -> None:
        reign = self._reign
        if reign.emptied:
            await self._refill()
        wait_s = max(0.0, self._tick_mono - time.monotonic())
        await self._read(self._count(), max(1, int(wait_s * 1000)))
        while reign.submitted:
            reign.feed(reign.submitted.popleft())
        if time.monotonic() >= self._tick_mono:
            self._tick_mono = time.monotonic() + TICK_S
            reign.feed(Tick())
        await self._do()
        published, self._published = self._published, False
        await self._chores.run(reign.clock.to_redis(reign.clock.now_ms), verdict=published)
        await self._do()
        await self._check_epoch()
        if reign.refill_due:
            await self._refill_book()
        self._show()

    def _count(self) -> int:
        return max(10, min(READ_COUNT, 20_000 // (len(self._reign.inboxes.cursors) + 1)))

    async def _read(self, count: int, block_ms: int) -> int:
        """Read a batch and feed it; gives how many entries it had."""
        reign = self._reign
        cursors = reign.inboxes.cursors
        if self._board.role is not ReplicaRole.LEADER:
            # Commands wait until what they would change has been published.
            cursors = {key: cursor for key, cursor in cursors.items() if key != reign.commands_key}
        try:
            read = await reign.follower.read(cursors, count, block_ms)
        except ReadOnlyError:
            raise
        except ResponseError:
            # Whatever else a server refuses to read for (a missing permission) is said, and tried again later.
            if not await self._heal_streams():
                raise
            return 0
        self._board.beat()
        away_s = self._board.redis_answered()
        if away_s is not None:
            log.info("redis answers", action="redis.up", away_s=round(away_s, 1))
        now_mono = time.monotonic()
        moment = reign.clock.read(read.now_ms, now_mono)
        if moment.gap is not None:
            self._chores.gap(moment.gap.value)
        done = 0
        for key, entries in read.batch:
            for entry_id, flat in entries:
                if key == reign.commands_key:
                    await operators.handle(reign, entry_id, flat, moment.redis_ms)
                else:
                    self._entry(key, entry_id, flat, moment.redis_ms, now_mono)
                    if reign.hands.unpublished and self._board.role is ReplicaRole.LEADER:
                        await self._do()
                done += 1
                if done % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        return done

    async def _heal_streams(self) -> bool:
        """One key that is no stream makes every read fail: such keys are of no use to anybody, and go."""
        reign = self._reign
        wrong = await reads.no_streams(reign.client, list(reign.inboxes.cursors))
        for key in wrong:
            reign.counters.unreadable["wrong_type"] += 1
            log.error("no stream; removed", action="leader.wrong_type")
            name = key.decode().removeprefix(reign.keys.prefix)
            reign.hands.dead(Poison(name, "0-0", "wrong_type", b""))
            await reads.remove(reign.client, key)
        return bool(wrong)

    def _entry(
        self, key: bytes, entry_id: bytes, flat: list[bytes] | None, redis_ms: int, mono_s: float
    ) -> None:
        reign = self._reign
        try:
            item = reign.inboxes.take(key, entry_id, flat, redis_ms, mono_s)
        except Exception as exc:  # noqa: BLE001 - its cursor has passed it: one entry lost, the stream is not
            reign.counters.unreadable["error"] += 1
            log.error("entry not understood", action="leader.entry_error", error=type(exc).__name__)
            return
        if item is None:
            return
        if isinstance(item, Poison):
            reign.hands.dead(item)
        elif isinstance(item, Clash):
            said = f"two processes report as worker {item.worker}; the one that came later is heard"
            log.warning("worker id used twice", action="leader.worker_clash", worker=item.worker)
            reign.hands.event(
                Event(
                    reign.clock.now_ms,
                    "worker",
                    reason=said[:300],
                    worker=item.worker,
                    epoch=reign.fence.epoch,
                )
            )
        else:
            reign.feed(item)

    async def _do(self) -> None:
        if await self._reign.hands.do():
            self._published = True
            self._show()

    async def _refill(self) -> None:
        """Redis was emptied, wholly or in part: everything again, under an epoch that makes workers listen."""
        reign = self._reign
        log.warning("redis was emptied; refilling", action="leader.refill", epoch=reign.fence.epoch)
        await raise_epoch(reign, reign.inboxes.highest_epoch + 1)
        reign.refill_due = True
        self._chores.gap("emptied")
        await publish_all(reign, reign.hands.revision)
        reign.counters.refills += 1
        reign.emptied = False
        self._published = True
        self._show()

    async def _refill_book(self) -> None:
        reign = self._reign
        mark, kept = str(reign.book.mark), reign.book.tables
        await writes.refill(reign.client, reign.keys, reign.fence, mark=mark, kept=kept)
        reign.refill_due = False

    async def _check_epoch(self) -> None:
        """Workers that obey a higher epoch than ours are deaf to us: go above it."""
        reign, now_mono = self._reign, time.monotonic()
        if reign.inboxes.highest_epoch <= reign.fence.epoch or now_mono - self._epoch_mono < EPOCH_EVERY_S:
            return
        self._epoch_mono = now_mono
        await raise_epoch(reign, reign.inboxes.highest_epoch + 1)
        await publish_all(reign, reign.hands.revision)
        log.warning(
            "epoch raised above what workers report", action="leader.epoch_raised", epoch=reign.fence.epoch
        )

    def _show(self) -> None:
        self._board.epoch, self._board.revision = self._reign.fence.epoch, self._reign.hands.revision

    async def _trouble(self, exc: BaseException) -> None:
        reign = self._reign
        reign.counters.redis_errors += 1
        if self._board.redis_failed():
            log.warning("redis does not answer", action="redis.down", error=type(exc).__name__)
        await self._pause()

    async def _bugs(self, exc: Exception) -> None:
        self._reign.counters.step_errors += 1
        name = type(exc).__name__
        if name != self._bug:
            self._bug = name
            log.error("a turn of the leader failed", action="leader.turn_error", error=name, exc_info=exc)
        await self._pause()

    async def _pause(self) -> None:
        # After a failover the old connections may lead to a server that is no primary any more.
        await self._reign.follower.drop()
        await self._reign.client.connection_pool.disconnect(inuse_connections=False)
        self._board.beat()
        await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])
        self._board.beat()

    async def _keep_lease(self) -> None:
        """Beside the loop, so that a long batch does not cost the lease; but a stuck loop does."""
        reign, settings = self._reign, self._reign.settings
        while True:
            await asyncio.sleep(settings.lease_renew_ms / 1000)
            if self._board.loop_age_s > STUCK_S:
                continue
            fence = reign.fence
            try:
                kept = await leases.renew(reign.client, reign.keys, fence, settings.lease_ttl_ms)
            except REDIS_TROUBLE:
                continue
            if (
                fence != reign.fence
            ):  # the loop took a higher epoch meanwhile; this answer is about the old one
                continue
            if kept.gone or (kept.held and self._board.role is ReplicaRole.LEADER and not kept.whole):
                reign.emptied = True
            elif not kept.held and not reign.emptied:
                reign.lost = True
