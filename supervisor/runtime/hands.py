"""The leader's hands: effects carried out against Redis, each write fenced.

Rules: what Redis has not taken yet stays here and goes with the next try; one entry that Redis will not have
is dropped and counted, never in the way of the others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import ReadOnlyError, ResponseError

from supervisor.core.effects import Effect, Emit, Publish
from supervisor.runtime.outbox import Outbox
from supervisor.store import writes
from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD
from supervisor.wire.messages import Audit, Directive, Event, Snapshot
from supervisor.wire.vocabulary import DirectiveKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis.asyncio

    from supervisor.runtime.clock import LeaderClock
    from supervisor.runtime.context import RuntimeCounters
    from supervisor.runtime.inboxes import Poison
    from supervisor.store.lease import Fence
    from supervisor.wire.keys import Keys

log = structlog.stdlib.get_logger(__name__)


class Hands:
    """Carries out effects. `save` gives the leader's state as it is to be written with a verdict."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        fence: Fence,
        clock: LeaderClock,
        counters: RuntimeCounters,
        save: Callable[[], bytes],
        replica: str,
    ) -> None:
        self.fence = fence
        self.revision = 0
        self.outbox = Outbox(keys, counters)
        self._client = client
        self._keys = keys
        self._clock = clock
        self._counters = counters
        self._save = save
        self._replica = replica
        self._snapshots: dict[str, Snapshot] = {}
        self._removed: set[str] = set()
        self._unpublished = False

    def hold(self, effects: Sequence[Effect]) -> None:
        """Take effects over, without doing anything yet."""
        for effect in effects:
            self._counters.effects[type(effect).__name__] += 1
            if isinstance(effect, Publish):
                self._hold_publish(effect)
            elif isinstance(effect, Emit):
                event = effect.event
                # The engine does not know what its process is called.
                self.event(
                    msgspec.structs.replace(event, after=self._replica) if event.kind == "leader" else event
                )
            else:
                deadline = self._clock.to_redis(effect.deadline_at_ms)
                self.directive(
                    Directive(
                        effect.id, DirectiveKind.PROBE, self.fence.epoch, self._clock.to_redis(self._clock.now_ms),
                        deadline, effect.target, effect.budget_ms, effect.reason,
                    ),
                    effect.worker,
                )  # fmt: skip

    def _hold_publish(self, effect: Publish) -> None:
        self.revision = effect.revision
        self._unpublished = True
        for snapshot in effect.snapshots:
            self._snapshots[snapshot.target] = snapshot
            self._removed.discard(snapshot.target)
        for target in effect.removed:
            self._snapshots.pop(target, None)
            self._removed.add(target)

    def publish_all_anew(self, revision: int, strangers: Sequence[str] = ()) -> None:
        """Make sure that something is published, also when there is no target; `strangers` are removed."""
        self.revision = max(self.revision, revision)
        self._removed.update(target for target in strangers if target not in self._snapshots)
        self._unpublished = True

    @property
    def unpublished(self) -> bool:
        """Whether there is something to publish."""
        return self._unpublished

    def drop_unpublished(self) -> None:
        """Forget what was to be published: all of it is about to be published anew."""
        self._snapshots, self._removed, self._unpublished = {}, set(), False

    def event(self, event: Event) -> None:
        """A line for `events`."""
        self.outbox.add("events", {FIELD: encode(event)})

    def audit(self, audit: Audit) -> None:
        """A line for `audit`."""
        self.outbox.add("audit", {FIELD: encode(audit)})

    def dead(self, poison: Poison) -> None:
        """An entry that could not be read, for `dead`."""
        fields = {
            "stream": poison.stream,
            "id": poison.entry_id,
            "reason": poison.reason,
            "data": poison.data,
        }
        self.outbox.add("dead", fields)

    def directive(self, directive: Directive, worker: str) -> None:
        """An order to one worker."""
        self.outbox.add("directive:<worker>", {FIELD: encode(directive)}, self._keys.directive(worker))

    async def do(self) -> bool:
        """Publish, then append what waits. True when something was published.

        Raises `Fenced`, `Emptied` or redis-py's errors; nothing is lost by that but what was refused as it is.
        """
        published = await self._publish() if self._unpublished else False
        while len(self.outbox):
            await self._append()
        return published

    async def _publish(self) -> bool:
        began_mono = time.monotonic()
        offset = self._clock.offset_ms
        snapshots = [self._in_redis_time(s) if offset else s for s in self._snapshots.values()]
        try:
            await writes.publish(
                self._client, self._keys, self.fence, revision=self.revision, snapshots=snapshots,
                removed=sorted(self._removed), state=self._save(),
            )  # fmt: skip
        except ReadOnlyError:
            raise
        except ResponseError as exc:
            # Somebody's hand in our keys, or no memory left. It stays to be published; the next turn tries again.
            self._counters.effects_failed["Publish"] += 1
            log.error("strategy refused", action="leader.publish_refused", error=type(exc).__name__)
            return False
        self.drop_unpublished()
        self._counters.publishes += 1
        self._counters.publish_last_ms = (time.monotonic() - began_mono) * 1000
        return True

    def _in_redis_time(self, snapshot: Snapshot) -> Snapshot:
        return msgspec.structs.replace(
            snapshot,
            hold_off_until_at_ms=self._clock.to_redis(snapshot.hold_off_until_at_ms),
            since_at_ms=self._clock.to_redis(snapshot.since_at_ms),
        )

    async def _append(self) -> None:
        entries = self.outbox.head()
        try:
            await writes.append(self._client, self._keys, self.fence, entries)
        except ReadOnlyError:
            raise
        except ResponseError:
            await self._append_singly(entries)
        self.outbox.done(len(entries))

    async def _append_singly(self, entries: Sequence[writes.Entry]) -> None:
        for entry in entries:
            try:
                await writes.append(self._client, self._keys, self.fence, [entry])
            except ReadOnlyError:
                raise
            except ResponseError as exc:
                self._counters.effects_failed[entry.name] += 1
                log.error(
                    "entry refused",
                    action="leader.append_refused",
                    stream=entry.name,
                    error=type(exc).__name__,
                )
