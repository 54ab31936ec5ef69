"""`/v1/sessions`."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field

from supervisor.api.base import ApiDep, Out, Page, iso, problems
from supervisor.api.paging import Cursor, Limit, make_cursor, read_cursor, read_stream_cursor
from supervisor.api.problems import Problem, not_found
from supervisor.wire.keys import KeyNameError, check_worker
from supervisor.wire.messages import SessionInfo
from supervisor.wire.vocabulary import FaultKind

router = APIRouter(prefix="/sessions", tags=["sessions"])

# An ended call is looked for among so many of the newest.
ENDED_SEARCH = 2_000


class SessionOut(Out):
    """One call, live or ended."""

    id: str
    worker: str
    live: bool
    started_at: str | None
    ended_at: str | None
    turns: int
    errors: dict[str, dict[FaultKind, int]] = Field(description="By role, then by fault kind.")
    failovers: int
    apologies: int
    longest_silence_ms: int
    outcome: str
    targets: dict[str, str] = Field(description="The target in use, by role.")


def represent(info: SessionInfo) -> SessionOut:
    """A call as REST shows it. Pure."""
    return SessionOut(
        id=info.session,
        worker=info.worker,
        live=info.ended_at_ms == 0,
        started_at=iso(info.started_at_ms),
        ended_at=iso(info.ended_at_ms),
        turns=info.turns,
        errors=info.errors,
        failovers=info.failovers,
        apologies=info.apologies,
        longest_silence_ms=info.longest_silence_ms,
        outcome=info.outcome,
        targets=dict(info.targets),
    )


@router.get("", summary="Calls, live or ended", responses=problems(400, 503))
async def list_sessions(
    api: ApiDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    status: Annotated[
        Literal["live", "ended"], Query(description="Live by id, or ended ones, newest first.")
    ] = "live",
) -> Page[SessionOut]:
    """Live calls, or those that ended (the newest 20,000)."""
    if status == "live":
        infos, following = await api.records.sessions_page(read_cursor(cursor), limit)
    else:
        before = read_stream_cursor(cursor)
        entries, following = await api.records.stream_page("sessions:ended", SessionInfo, limit, before)
        infos = [info for _, info in entries]
    return Page(items=[represent(info) for info in infos], next=make_cursor(following) if following else None)


@router.get("/{session_id}", summary="One call", responses=problems(400, 404, 503))
async def get_session(
    session_id: Annotated[str, Path(min_length=1, max_length=128)], api: ApiDep
) -> SessionOut:
    """One live call, or one of the 2,000 that ended last."""
    try:
        check_worker(session_id)
    except KeyNameError:
        raise Problem(
            400, "bad-session-id", "a session id is 1 to 128 characters of A-Z a-z 0-9 . _ -"
        ) from None
    info = await api.records.session(session_id)
    if info is None:
        ended, _ = await api.records.stream_page("sessions:ended", SessionInfo, ENDED_SEARCH)
        info = next((found for _, found in ended if found.session == session_id), None)
    if info is None:
        raise not_found(f"session {session_id}", "GET /v1/sessions lists them, live or ended")
    return represent(info)
