"""What holds without a strategy: built-in defaults, the user's own order."""

from __future__ import annotations

from functools import lru_cache

from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import Role, State

# The engine's own start values (supervisor.core.policy), for a worker that never heard of a supervisor.
_FIRST_OUTPUT_MS = {Role.STT.value: 3_000}
_HEDGE_MS = 800


@lru_cache(maxsize=512)
def default_snapshot(target: str, order: int) -> Snapshot:
    """A healthy target with the contract's start values, ranked as the user listed it."""
    return Snapshot(
        target=target,
        revision=0,
        epoch=0,
        state=State.HEALTHY,
        rank=order,
        first_output_ms=_FIRST_OUTPUT_MS.get(target.partition(":")[0], 1_500),
        hedge_ms=_HEDGE_MS,
        reason="no strategy from a supervisor: built-in defaults",
    )
