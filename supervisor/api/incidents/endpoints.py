"""`/v1/incidents`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from supervisor.api.base import Api, ApiDep, Page, problems
from supervisor.api.incidents.schemas import IncidentOut
from supervisor.api.incidents.service import represent
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.problems import not_found

router = APIRouter(prefix="/incidents", tags=["incidents"])


async def _open_ids(api: Api) -> frozenset[str]:
    view = await api.records.view()
    return frozenset(target.incident for target in view.targets if target.incident) if view else frozenset()


@router.get("", summary="Incidents, newest first", responses=problems(400, 503))
async def list_incidents(
    api: ApiDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    target: Annotated[str | None, Query(max_length=200, description="Only this target's.")] = None,
    only_open: Annotated[bool, Query(alias="open", description="Only those still open.")] = False,
) -> Page[IncidentOut]:
    """As far back as the newest 10,000 events reach."""
    open_ids = await _open_ids(api)
    found = [
        incident
        for incident in await api.incidents.all()
        if (target is None or incident.target == target) and (incident.id in open_ids or not only_open)
    ]
    page, following = page_of(found, lambda incident: incident.id, cursor, limit)
    return Page(items=[represent(incident, open_ids) for incident in page], next=following)


@router.get("/{incident_id}", summary="One incident", responses=problems(404, 503))
async def get_incident(
    incident_id: Annotated[str, Path(min_length=1, max_length=64)], api: ApiDep
) -> IncidentOut:
    """One incident with its steps."""
    for incident in await api.incidents.all():
        if incident.id == incident_id:
            return represent(incident, await _open_ids(api))
    raise not_found(f"incident {incident_id}", "GET /v1/incidents lists those that are kept")
