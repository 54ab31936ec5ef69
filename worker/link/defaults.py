"""What holds without a strategy: built-in defaults, the user's own order."""

from __future__ import annotations

from functools import lru_cache

from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import State


@lru_cache(maxsize=512)
def default_snapshot(target: str, order: int) -> Snapshot:
    """A healthy target with the contract's start values, ranked as the user listed it."""
    return Snapshot(
        target=target,
        revision=0,
        epoch=0,
        state=State.HEALTHY,
        rank=order,
        reason="no strategy from a supervisor: built-in defaults",
    )
