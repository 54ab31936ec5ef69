"""What the parts of one supervisor process share: REST, checks and leader see this, not each other.

Rule: no I/O in here, and nothing here changes by itself: the runtime writes, everybody else reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.settings import SupervisorSettings
    from supervisor.wire.keys import Keys


class ReplicaRole(StrEnum):
    """What this process is right now."""

    STARTING = "starting"
    STANDBY = "standby"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of this process.

    role: leader once it has caught up; a replica that has just won the lease is still a standby.
    leader: replica id of the leader as last seen in Redis ("" when there is none).
    epoch, revision: the leader's; on a standby as last seen in Redis (0: never seen).
    redis_ok: the last call to Redis was answered.
    redis_age_s: since Redis last answered. last_loop_age_s: since the runtime's loop last came round;
    above about 5 s the process is frozen or stuck, whatever else it says.
    """

    role: ReplicaRole
    replica: str
    leader: str
    epoch: int
    revision: int
    redis_ok: bool
    redis_age_s: float
    last_loop_age_s: float

    @property
    def ready(self) -> bool:
        """Redis answers and this process knows its place: it can serve what it is asked."""
        return self.redis_ok and self.role is not ReplicaRole.STARTING

    @property
    def is_leader(self) -> bool:
        return self.role is ReplicaRole.LEADER


@dataclass(slots=True)
class RuntimeCounters:
    """Plain numbers since this process began; `supervisor.api.metrics` turns them into Prometheus series.

    Every label set is closed: reasons, commands' ops, names of inputs and effects.
    """

    entries_read: int = 0
    unreadable: Counter[str] = field(default_factory=Counter[str])  # by reason
    reports_folded: int = 0
    inputs: Counter[str] = field(default_factory=Counter[str])  # by kind of input
    effects: Counter[str] = field(default_factory=Counter[str])  # by kind of effect
    effects_failed: Counter[str] = field(default_factory=Counter[str])  # by kind of effect
    step_errors: int = 0
    commands: Counter[str] = field(default_factory=Counter[str])  # by op
    commands_refused: Counter[str] = field(default_factory=Counter[str])  # by op
    gaps: Counter[str] = field(default_factory=Counter[str])  # by reason
    publishes: int = 0
    publish_last_ms: float = 0.0
    takeovers: int = 0
    leases_lost: int = 0
    refills: int = 0
    redis_errors: int = 0
    worker_id_clashes: int = 0
    recording_dropped: int = 0
    outbox_dropped: Counter[str] = field(default_factory=Counter[str])  # by stream
    state_bytes: int = 0
    view_bytes: int = 0
    state_dir_errors: int = 0
    sse_clients: int = 0  # kept by the API
    sse_dropped: int = 0  # kept by the API


@dataclass(slots=True)
class SupervisorContext:
    """Handed to `supervisor.api.app.create_app(context)` and `supervisor.checks.runner.run(context, submit)`.

    redis: answers bytes, gives up after `settings.redis_timeout_s`; for everything that does not wait.
    redis_blocking: the same server with room for BLPOP and XREAD BLOCK of up to 5 s.
    status: this process's `Status`, cheap, never raises, no I/O.
    """

    settings: SupervisorSettings
    keys: Keys
    redis: redis.asyncio.Redis
    redis_blocking: redis.asyncio.Redis
    status: Callable[[], Status]
    counters: RuntimeCounters = field(default_factory=RuntimeCounters)

    @property
    def replica(self) -> str:
        return self.settings.replica
