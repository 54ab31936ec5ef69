"""One replica's life: stand by, lead when the lease is free, stand by again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

from supervisor.runtime.context import ReplicaRole
from supervisor.runtime.kept import KeptBook, Mark, decode_book
from supervisor.runtime.leader import Leader
from supervisor.runtime.reign import KEPT_FILE, Reign
from supervisor.runtime.takeover import load_saved
from supervisor.runtime.tasks import end
from supervisor.store import lease as leases
from supervisor.store import reads, writes
from supervisor.store.clients import REDIS_TROUBLE, leader_client
from supervisor.store.follow import Follower
from supervisor.store.lease import Fence, Lease
from supervisor.store.statedir import StateDir, StateDirError

if TYPE_CHECKING:
    from supervisor.core.inputs import CheckEnded
    from supervisor.runtime.board import StatusBoard
    from supervisor.runtime.context import SupervisorContext
    from supervisor.runtime.engine_port import Engine

log = structlog.stdlib.get_logger(__name__)

LOOK_S = 0.3
BACKOFF_S = (0.1, 1.0)
RELEASE_S = 1.0

Submit = Callable[["CheckEnded"], None]
Checks = Callable[["SupervisorContext", Submit], Awaitable[None]]


class Office:
    """`run` goes on until it is cancelled; then the lease is given back."""

    def __init__(
        self, context: SupervisorContext, board: StatusBoard, engine: Engine, checks: Checks | None = None
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._keys = context.keys
        self._board = board
        self._engine = engine
        self._checks = checks
        self._client = leader_client(self._settings)
        # Ours alone, whatever two replicas may be called.
        self._token = secrets.token_hex(12)
        self._backoff_s = BACKOFF_S[0]
        self._missing_mono = 0.0
        self._seen_leader = False
        folder = self._settings.state_dir
        self._state_dir = StateDir(folder) if folder is not None else None
        self._mirrored = ""

    async def run(self) -> None:
        """See the class."""
        try:
            while True:
                try:
                    lease = await self._stand_by()
                    await self._lead(lease)
                except Exception as exc:
                    self._context.counters.step_errors += 1
                    log.error(
                        "a replica's turn failed",
                        action="office.error",
                        error=type(exc).__name__,
                        exc_info=exc,
                    )
                    await asyncio.sleep(BACKOFF_S[1])
        finally:
            await self._client.aclose()

    async def _stand_by(self) -> Lease:
        board = self._board
        while True:
            board.beat()
            try:
                lease = await self._try()
            except REDIS_TROUBLE as exc:
                self._context.counters.redis_errors += 1
                # News is also that it does not answer at the very start.
                first = board.role is ReplicaRole.STARTING and self._backoff_s == BACKOFF_S[0]
                if board.redis_failed() or first:
                    log.warning("redis does not answer", action="redis.down", error=type(exc).__name__)
                await self._client.connection_pool.disconnect(inuse_connections=False)
                await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
                self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])
                continue
            away_s = board.redis_answered()
            if away_s is not None:
                log.info("redis answers", action="redis.up", away_s=round(away_s, 1))
            self._backoff_s = BACKOFF_S[0]
            if lease.taken:
                return lease
            self._stands_by(lease)
            # As soon as the lease can be over, and now and then in case it is given back.
            await asyncio.sleep(
                min(LOOK_S, max(0.02, lease.left_ms / 1000 + 0.005)) * random.uniform(0.9, 1.0)
            )

    async def _try(self) -> Lease:
        settings, now_mono = self._settings, time.monotonic()
        # A leader that we saw and whose key is gone is most likely alive, knows everything, and refills Redis
        # within moments; we know nothing. Only when it does not come, we begin anew.
        grace_s = max(3.0, 2 * settings.lease_ttl_ms / 1000)
        patient = self._seen_leader and (self._missing_mono == 0.0 or now_mono - self._missing_mono < grace_s)
        lease = await leases.acquire(
            self._client, self._keys, token=self._token, owner=settings.replica, ttl_ms=settings.lease_ttl_ms,
            take_missing=not patient,
        )  # fmt: skip
        if not lease.missing:
            self._missing_mono, self._seen_leader = 0.0, True
        elif self._missing_mono == 0.0:
            self._missing_mono = now_mono
        if not lease.taken and lease.kept != self._mirrored:
            await self._mirror(lease.kept)
        return lease

    def _stands_by(self, lease: Lease) -> None:
        board = self._board
        if board.role is not ReplicaRole.STANDBY:
            log.info("stands by", action="standby.begin", leader=lease.owner, epoch=lease.epoch)
        board.role = ReplicaRole.STANDBY
        board.leader = lease.owner if lease.left_ms > 0 else ""
        board.epoch, board.revision = lease.epoch, lease.revision

    async def _mirror(self, mark: str) -> None:
        """Keep what operators set on our disk too: Redis and the leader may be lost together."""
        if self._state_dir is None or not mark:
            self._mirrored = mark
            return
        tables = await reads.kept(self._client, self._keys)
        self._mirrored = mark  # not before: a Redis that did not answer is asked again
        book = KeptBook(Mark.parse(mark), tables)
        ours = decode_book(await asyncio.to_thread(self._state_dir.read, KEPT_FILE))
        if ours is not None and ours.mark >= book.mark:
            return
        try:
            await asyncio.to_thread(self._state_dir.write, KEPT_FILE, book.encode())
        except StateDirError as exc:
            self._context.counters.state_dir_errors += 1
            log.error("state folder refused a copy", action="statedir.failed", error=exc.strerror)

    async def _lead(self, lease: Lease) -> None:
        fence = Fence(self._token, lease.epoch)
        follower = Follower(self._settings.redis_url.get_secret_value(), self._settings.redis_timeout_s)
        reign: Reign | None = None
        checking: asyncio.Task[None] | None = None
        try:
            saved, lost = await load_saved(self._state_dir, await reads.state(self._client, self._keys))
            reign = Reign(self._context, self._engine, self._client, follower, fence, saved)
            if self._checks is not None:
                checking = asyncio.create_task(self._check(self._checks, reign.submitted.append))
            await Leader(reign, self._board).run(lease, saved, lost)
        except (writes.Emptied, *REDIS_TROUBLE) as exc:
            # It had not taken over yet; the lease is still ours, and the next try begins at once.
            log.warning("takeover broke off", action="leader.takeover_failed", error=type(exc).__name__)
            await asyncio.sleep(BACKOFF_S[0])
        finally:
            self._board.role = ReplicaRole.STANDBY
            await end(checking)
            await follower.close()
            await self._release(reign.fence if reign is not None else fence)

    async def _release(self, fence: Fence) -> None:
        with contextlib.suppress(*REDIS_TROUBLE):
            async with asyncio.timeout(RELEASE_S):
                await leases.release(self._client, self._keys, fence)

    async def _check(self, checks: Checks, submit: Submit) -> None:
        try:
            await checks(self._context, submit)
        except Exception as exc:  # noqa: BLE001 - checks are hints: without them the leader leads on
            log.error("checks ended", action="checks.failed", error=type(exc).__name__)
