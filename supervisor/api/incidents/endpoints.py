"""`/v1/incidents`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from supervisor.api.base import Api, ApiDep, Page, problems
from supervisor.api.incidents.schemas import IncidentOut
from supervisor.api.incidents.service import fold
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.problems import not_found
from supervisor.wire.messages import Event

router = APIRouter(prefix="/incidents", tags=["incidents"])

_CHUNK = 1_000
_MAX_EVENTS = 10_000  # what `events` keeps


async def _all(api: Api) -> list[IncidentOut]:
    view = await api.records.view()
    open_ids = (
        frozenset(target.incident for target in view.targets if target.incident) if view else frozenset[str]()
    )
    events: list[tuple[str, Event]] = []
    cursor: str | None = ""
    # In chunks, so that reading all of it never keeps the loop from other requests for long.
    while cursor is not None and len(events) < _MAX_EVENTS:
        found, cursor = await api.records.stream_page("events", Event, _CHUNK, cursor)
        events.extend(found)
    return fold(events, open_ids)


@router.get("", summary="Incidents, newest first", responses=problems(400, 503))
async def list_incidents(
    api: ApiDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    target: Annotated[str | None, Query(max_length=200, description="Only this target's.")] = None,
    only_open: Annotated[bool, Query(alias="open", description="Only those still open.")] = False,
) -> Page[IncidentOut]:
    """As far back as the newest 10,000 events reach."""
    found = [
        incident
        for incident in await _all(api)
        if (target is None or incident.target == target) and (incident.open or not only_open)
    ]
    page, following = page_of(found, lambda incident: incident.id, cursor, limit)
    return Page(items=page, next=following)


@router.get("/{incident_id}", summary="One incident", responses=problems(404, 503))
async def get_incident(
    incident_id: Annotated[str, Path(min_length=1, max_length=64)], api: ApiDep
) -> IncidentOut:
    """One incident with its steps."""
    for incident in await _all(api):
        if incident.id == incident_id:
            return incident
    raise not_found(f"incident {incident_id}", "GET /v1/incidents lists those that are kept")
