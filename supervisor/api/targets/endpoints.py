"""`/v1/targets`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from supervisor.api.base import ApiDep, Operator, Page, TargetIdPath, View, find_target, in_order, problems
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.targets.history import read_history
from supervisor.api.targets.schemas import HistoryOut, ProbeOut, TargetOut
from supervisor.api.targets.service import represent
from supervisor.wire.vocabulary import Role, State

router = APIRouter(prefix="/targets", tags=["targets"])


@router.get("", summary="All targets, in rank order within a role", responses=problems(503))
async def list_targets(
    view: View,
    limit: Limit = 500,
    cursor: Cursor = None,
    role: Annotated[Role | None, Query(description="Only this role.")] = None,
    state: Annotated[State | None, Query(description="Only this state.")] = None,
) -> Page[TargetOut]:
    """Every target that workers report, with its verdict, reason and counts."""
    targets = [
        t for t in in_order(view) if (role is None or t.role == role) and (state is None or t.state == state)
    ]
    page, following = page_of(targets, lambda t: t.id, cursor, limit)
    return Page(items=[represent(t) for t in page], next=following)


@router.get("/{target_id}", summary="One target", responses=problems(400, 404, 503))
async def get_target(target_id: TargetIdPath, view: View) -> TargetOut:
    """One target with its verdict and evidence."""
    return represent(find_target(view, target_id))


@router.get("/{target_id}/history", summary="A target's past", responses=problems(400, 404, 503))
async def get_history(
    target_id: TargetIdPath,
    api: ApiDep,
    view: View,
    step: Annotated[
        Literal["5s", "1m"],
        Query(description="5 s points of the last hour, or 1 min points of the last day."),
    ] = "5s",
) -> HistoryOut:
    """Attempts and faults over time, oldest first."""
    find_target(view, target_id)
    return await read_history(api.context, target_id, step, await api.records.now_ms())


@router.post(
    "/{target_id}/probe",
    status_code=202,
    summary="Probe a target now",
    responses=problems(400, 404, 503, 504),
)
async def probe_target(target_id: TargetIdPath, api: ApiDep, who: Operator, view: View) -> ProbeOut:
    """Ask for one probe: a minimal real request by one worker. It obeys the spend cap and the one-at-a-time rule."""
    find_target(view, target_id)
    reply = await api.commands.send("probe", who.id, {"target": target_id})
    return ProbeOut(target=target_id, detail=reply.detail, revision=reply.revision)
