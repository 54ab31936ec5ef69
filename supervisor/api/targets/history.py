"""A target's past, as the leader keeps it: from stored points to what REST shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.api.base import iso
from supervisor.api.targets.schemas import HistoryOut, HistoryPoint
from supervisor.store.history import COARSE, FINE
from supervisor.store.history import HistoryPoint as Stored
from supervisor.store.history import read_history as read_points
from supervisor.wire.vocabulary import HISTOGRAM_BOUNDS_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supervisor.runtime.context import SupervisorContext


def quantile_ms(histogram: Sequence[int], quantile: float) -> int | None:
    """The upper bound of the bucket that the quantile falls into; None without first outputs. Pure."""
    total = sum(histogram)
    if total == 0:
        return None
    seen = 0
    for at, count in enumerate(histogram):
        seen += count
        if seen >= quantile * total:
            return HISTOGRAM_BOUNDS_MS[min(at, len(HISTOGRAM_BOUNDS_MS) - 1)]
    return HISTOGRAM_BOUNDS_MS[-1]


def represent(point: Stored) -> HistoryPoint:
    """One step as REST shows it. Pure."""
    faults = sum(point.faults.values())
    finished = point.ok + faults
    return HistoryPoint(
        at=iso(point.at_ms),
        attempts=point.attempts,
        ok=point.ok,
        faults=faults,
        faults_by_kind=point.faults,
        fault_rate=round(faults / finished, 4) if finished else 0.0,
        abandoned=point.abandoned,
        first_output_p50_ms=quantile_ms(point.histogram, 0.5),
        first_output_p95_ms=quantile_ms(point.histogram, 0.95),
    )


async def read_history(context: SupervisorContext, target_id: str, step: str, now_ms: int) -> HistoryOut:
    """Everything that is kept in one resolution, oldest first."""
    size = FINE if step == "5s" else COARSE
    span_ms = size.length_ms * size.slots
    points = await read_points(context.redis, context.keys, target_id, size, now_ms, span_ms)
    return HistoryOut(
        target=target_id, step_s=size.length_ms // 1000, items=[represent(point) for point in points]
    )
