"""What the engine wants done. `runtime` carries these out; nothing here does anything."""

from __future__ import annotations

import msgspec

from supervisor.wire.messages import Event, Snapshot


class Publish(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """Write state, these snapshots and the revision together, and wake the links."""

    revision: int
    snapshots: tuple[Snapshot, ...]
    removed: tuple[str, ...] = ()


class Emit(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """Append to `events` (verdicts, incidents, alarms, flagged workers, gaps)."""

    event: Event


class SendProbe(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """Send a probe directive to one worker."""

    id: str
    worker: str
    target: str
    budget_ms: int
    deadline_at_ms: int
    reason: str = ""


Effect = Publish | Emit | SendProbe
