"""One leader's time in office: the engine's state and everything around it that lives and dies with the lease."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import structlog

from supervisor.core.inputs import CheckEnded, Input, Reported
from supervisor.runtime.clock import LeaderClock
from supervisor.runtime.hands import Hands
from supervisor.runtime.history import History
from supervisor.runtime.inboxes import FIRST, Inboxes, cursor_of
from supervisor.runtime.kept import KeptBook
from supervisor.runtime.recorder import Recorder
from supervisor.runtime.saved import Saved, encode_saved
from supervisor.store.statedir import StateDir

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.runtime.context import SupervisorContext
    from supervisor.runtime.engine_port import Engine
    from supervisor.store.follow import Follower
    from supervisor.store.lease import Fence

log = structlog.stdlib.get_logger(__name__)

KEPT_FILE = "kept.bin"
ENGINE_FILE = "engine.bin"
MAX_SUBMITTED = 1_000


class Reign:
    """Values only; `leader`, `takeover`, `chores` and `operators` act on it."""

    def __init__(
        self,
        context: SupervisorContext,
        engine: Engine,
        client: redis.asyncio.Redis,
        follower: Follower,
        fence: Fence,
        saved: Saved | None,
    ) -> None:
        self.context = context
        self.settings = context.settings
        self.keys = context.keys
        self.counters = context.counters
        self.engine = engine
        self.client = client
        self.follower = follower
        self.clock = LeaderClock(saved.at_ms if saved is not None else 0)
        self.state: Any = None
        self.book = KeptBook()
        self.hands = Hands(client, self.keys, fence, self.clock, self.counters, self.save, context.replica)
        self.inboxes = Inboxes(self.keys, self.counters)
        self.recorder = Recorder(self.counters)
        self.history = History(self.clock.now_ms)
        self.submitted: deque[CheckEnded] = deque(maxlen=MAX_SUBMITTED)
        self.seen_commands: deque[str] = deque(maxlen=200)
        self.commands_key = self.keys("commands").encode()
        self.inboxes.cursors[self.commands_key] = cursor_of(saved.commands) if saved is not None else FIRST
        folder = self.settings.state_dir
        self.state_dir = StateDir(folder) if folder is not None else None
        # Set by the task that renews the lease, acted upon by the loop.
        self.emptied = False
        self.lost = False
        # What Redis holds of the operators' records is not what the book says: write all of it again.
        self.refill_due = False
        self.disk_refused = False

    @property
    def fence(self) -> Fence:
        return self.hands.fence

    def feed(self, item: Input) -> None:
        """One input to the engine; its effects wait in `hands`. A bug in a rule costs this input, not the leader."""
        now_ms = self.clock.now_ms
        try:
            self.state, effects = self.engine.step(self.state, item, now_ms)
        except Exception as exc:  # noqa: BLE001 - one poison input must not stop the fleet's only decider
            self.counters.step_errors += 1
            log.error(
                "engine refused an input",
                action="leader.step_error",
                input=type(item).__name__,
                error=type(exc).__name__,
            )
            return
        name = type(item).__name__
        self.counters.inputs[name] += 1
        self.recorder.add(now_ms, item)
        if isinstance(item, Reported):
            self.counters.reports_folded += 1
            self.history.take(item.report)
        if effects:
            self.hands.hold(effects)

    def save(self) -> bytes:
        """Everything that the next leader needs, as of now."""
        saved = Saved(
            at_ms=self.clock.now_ms,
            epoch=self.fence.epoch,
            revision=self.hands.revision,
            engine=self.engine.dump(self.state),
            inboxes=self.inboxes.marks(),
            commands=self.inboxes.cursors[self.commands_key].decode(),
            overrides=tuple(self.book.tables["override"]),
            policies=tuple(self.book.tables["policy"]),
        )
        data = encode_saved(saved)
        self.counters.state_bytes = len(data)
        return data
