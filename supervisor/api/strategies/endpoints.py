"""`/v1/strategies`."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from supervisor.api.base import ApiDep, Out, View, iso, problems
from supervisor.api.paging import Cursor, Limit, page_of

router = APIRouter(tags=["strategies"])


class AppliedOut(Out):
    """What one worker does about the fleet's strategy."""

    worker: str
    applied: int = Field(description="Revision that it obeys.")
    behind: int = Field(description="Revisions that it has not applied yet.")
    lag_ms: int | None = Field(description="How long the newest took from the leader to the worker.")
    refused: dict[str, str] = Field(description="Targets whose snapshot it refused, and why.")
    last_report_at: str | None


class StrategiesOut(Out):
    """The fleet's revision and what each worker has applied."""

    epoch: int
    revision: int
    applied_by_all: bool
    items: list[AppliedOut]
    next: str | None = None


@router.get("/strategies", summary="Who obeys which revision", responses=problems(503))
async def get_strategies(api: ApiDep, view: View, limit: Limit = 500, cursor: Cursor = None) -> StrategiesOut:
    """The current revision, and per worker what it applied, how late, and what it refused."""
    infos = await api.records.workers()
    workers = sorted(view.workers, key=lambda worker: worker.worker)
    page, following = page_of(workers, lambda worker: worker.worker, cursor, limit)
    items: list[AppliedOut] = []
    for worker in page:
        info = infos.get(worker.worker)
        items.append(
            AppliedOut(
                worker=worker.worker,
                applied=worker.revision,
                behind=max(0, view.revision - worker.revision),
                lag_ms=info.apply_lag_ms if info is not None else None,
                refused=worker.refused,
                last_report_at=iso(worker.last_report_at_ms),
            )
        )
    return StrategiesOut(
        epoch=view.epoch,
        revision=view.revision,
        applied_by_all=all(worker.revision >= view.revision for worker in workers),
        items=items,
        next=following,
    )
