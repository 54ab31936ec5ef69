"""`/v1/workers`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from supervisor.api.base import ApiDep, In, Operator, Out, Page, View, iso, problems
from supervisor.api.overrides.schemas import Reason
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.problems import Problem, not_found
from supervisor.wire.keys import KeyNameError, check_worker
from supervisor.wire.messages import WorkerInfo
from supervisor.wire.view import WorkerView
from supervisor.wire.vocabulary import WorkerState

router = APIRouter(prefix="/workers", tags=["workers"])


class WorkerOut(Out):
    """A worker: what it says of itself, and what the engine thinks of it."""

    id: str
    host: str
    state: WorkerState | None = Field(description="None: its record has run out.")
    version: str
    started_at: str | None
    last_report_at: str | None
    sessions: int
    targets: list[str]
    revision: int = Field(description="Revision of the strategy that it obeys.")
    apply_lag_ms: int
    refused: dict[str, str]
    flagged: str | None = Field(description="Why it is held to be the broken one.")
    bad_on: list[str] = Field(description="Targets that go wrong for this worker.")
    local_open: list[str] = Field(description="Targets that its own breaker keeps away from.")
    redis_reconnects: int
    dropped_reports: int
    dropped_faults: int
    targets_left_out: int


class DrainIn(In):
    """Why a worker is drained."""

    reason: Reason = "asked for by an operator"


class DrainOut(Out):
    """The worker was asked to drain."""

    worker: str
    detail: str


def worker_id_of(worker_id: Annotated[str, Path(min_length=1, max_length=128)]) -> str:
    """A worker id in a path. Raises `Problem` 400."""
    try:
        return check_worker(worker_id)
    except KeyNameError as exc:
        raise Problem(400, "bad-worker-id", str(exc), remedy="GET /v1/workers lists the ids") from None


WorkerIdPath = Annotated[str, Depends(worker_id_of)]


def represent(worker_id: str, seen: WorkerView | None, info: WorkerInfo | None) -> WorkerOut:
    """A worker as REST shows it: the engine's picture first, its own record where that says more. Pure."""
    return WorkerOut(
        id=worker_id,
        host=(seen.host if seen else "") or (info.host if info else ""),
        state=info.state if info else None,
        version=info.version if info else "",
        started_at=iso(info.started_at_ms) if info else None,
        last_report_at=iso(seen.last_report_at_ms) if seen else None,
        sessions=seen.sessions if seen else info.sessions if info else 0,
        targets=list(info.targets) if info else [],
        revision=seen.revision if seen else info.revision if info else 0,
        apply_lag_ms=info.apply_lag_ms if info else 0,
        refused=dict(seen.refused if seen else info.refused if info else {}),
        flagged=(seen.flagged or None) if seen else None,
        bad_on=list(seen.bad_on) if seen else [],
        local_open=list(info.local_open) if info else [],
        redis_reconnects=info.redis_reconnects if info else 0,
        dropped_reports=info.dropped_reports if info else 0,
        dropped_faults=info.dropped_faults if info else 0,
        targets_left_out=seen.targets_left_out if seen else 0,
    )


@router.get("", summary="All workers", responses=problems(503))
async def list_workers(api: ApiDep, view: View, limit: Limit = 100, cursor: Cursor = None) -> Page[WorkerOut]:
    """Every worker that reports or has a record, by id."""
    infos = await api.records.workers()
    seen = {worker.worker: worker for worker in view.workers}
    page, following = page_of(sorted({*infos, *seen}), str, cursor, limit)
    return Page(items=[represent(name, seen.get(name), infos.get(name)) for name in page], next=following)


@router.get("/{worker_id}", summary="One worker", responses=problems(400, 404, 503))
async def get_worker(worker_id: WorkerIdPath, api: ApiDep, view: View) -> WorkerOut:
    """One worker."""
    seen = next((worker for worker in view.workers if worker.worker == worker_id), None)
    info = await api.records.worker(worker_id)
    if seen is None and info is None:
        raise not_found(f"worker {worker_id}", "GET /v1/workers lists them")
    return represent(worker_id, seen, info)


@router.post(
    "/{worker_id}/drain", status_code=202, summary="Drain a worker", responses=problems(400, 404, 503, 504)
)
async def drain_worker(
    worker_id: WorkerIdPath, api: ApiDep, who: Operator, view: View, body: DrainIn | None = None
) -> DrainOut:
    """Take no new calls, let those it has come to their end, then leave."""
    await get_worker(worker_id, api, view)
    reason = (body or DrainIn()).reason
    reply = await api.commands.send("drain", who.id, {"worker": worker_id, "reason": reason})
    return DrainOut(worker=worker_id, detail=reply.detail)
