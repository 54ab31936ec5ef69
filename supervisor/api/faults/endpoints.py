"""`/v1/faults`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from supervisor.api.base import ApiDep, Out, Page, iso, problems
from supervisor.api.paging import Cursor, Limit, make_cursor, read_stream_cursor
from supervisor.wire.messages import FaultEvent
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import FaultKind, Phase, Role

router = APIRouter(tags=["faults"])

# A filtered page reads at most so many entries; its cursor goes on from there.
MAX_SCANNED = 5_000


class FaultOut(Out):
    """One fault. Keys, prompts, transcripts and personal data never left the worker."""

    id: str
    at: str | None
    worker: str
    host: str
    target: str
    role: Role | None
    provider: str
    model: str
    session: str
    turn: int
    kind: FaultKind
    status: int = Field(description="HTTP status or WebSocket close code; 0 without one.")
    request_id: str = Field(description="The provider's own id of the request.")
    attempt: int
    phase: Phase
    action: str = Field(description="What was done about it.")
    waited_ms: int
    message: str


def represent(entry_id: str, fault: FaultEvent) -> FaultOut:
    """A fault as REST shows it. Pure."""
    try:
        role, provider, model = parse_target(fault.target)
    except TargetError:
        role, provider, model = None, "", ""
    return FaultOut(
        id=entry_id,
        at=iso(fault.at_ms),
        worker=fault.worker,
        host=fault.host,
        target=fault.target,
        role=role,
        provider=provider,
        model=model,
        session=fault.session,
        turn=fault.turn,
        kind=fault.kind,
        status=fault.status,
        request_id=fault.request_id,
        attempt=fault.attempt,
        phase=fault.phase,
        action=fault.action,
        waited_ms=fault.waited_ms,
        message=fault.message,
    )


@router.get("/faults", summary="Faults, newest first", responses=problems(400, 503))
async def list_faults(
    api: ApiDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    target: Annotated[str | None, Query(max_length=200, description="Only this target's.")] = None,
    kind: Annotated[FaultKind | None, Query(description="Only of this kind.")] = None,
    worker: Annotated[str | None, Query(max_length=128, description="Only this worker's.")] = None,
    session: Annotated[str | None, Query(max_length=128, description="Only this call's.")] = None,
) -> Page[FaultOut]:
    """The newest 50,000 faults of the fleet. A filtered page may hold fewer than `limit` and still have a next."""
    last = read_stream_cursor(cursor)
    filtered = any(value is not None for value in (target, kind, worker, session))
    items: list[FaultOut] = []
    scanned = 0
    following: str | None = last
    while following is not None and len(items) < limit and scanned < MAX_SCANNED:
        count = 500 if filtered else limit
        entries, following = await api.records.stream_page("faults", FaultEvent, count, following)
        scanned += count
        for entry_id, fault in entries:
            if len(items) == limit:
                following = items[-1].id
                break
            if (
                (target is None or fault.target == target)
                and (kind is None or fault.kind == kind)
                and (worker is None or fault.worker == worker)
                and (session is None or fault.session == session)
            ):
                items.append(represent(entry_id, fault))
        if not filtered:
            break
    return Page(items=items, next=make_cursor(following) if following else None)
