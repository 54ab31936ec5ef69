"""`/v1/stream`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.datastructures import Headers

from supervisor.api.base import ApiDep, Viewer, problems
from supervisor.api.problems import Problem
from supervisor.api.security import cookie_token
from supervisor.api.stream.hub import Cursor
from supervisor.api.stream.response import EventStream

router = APIRouter(tags=["stream"])

_CONTENT = {"text/event-stream": {"schema": {"type": "string"}}}


@router.get(
    "/stream",
    summary="Live events",
    response_class=Response,
    responses={200: {"description": "Server-sent events", "content": _CONTENT}, **problems(400, 503)},
)
async def stream(
    request: Request,
    api: ApiDep,
    who: Viewer,
    kinds: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=r"^[a-z_]+(,[a-z_]+)*$",
            description="Only these, comma-separated: verdict, strategy, incident, alarm, leader, worker, gap, "
            "operator, fault.",
        ),
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=100, description="Go on after this id; browsers send it by themselves.")
    ] = None,
    since: Annotated[
        str | None, Query(max_length=100, description="The same for clients that cannot set headers.")
    ] = None,
) -> Response:
    """Verdicts, strategies, incidents, leader changes, workers and faults as they happen.

    An event named `gap` says that something is missing: read the state anew.
    """
    given = last_event_id or since
    cursor = Cursor.parse(given) if given else None
    if given and cursor is None:
        raise Problem(400, "bad-event-id", "Last-Event-ID is not one of ours", remedy="leave it out")
    client = await api.hub.join()
    if client is None:
        raise Problem(
            503,
            "too-many-listeners",
            "too many streams are open",
            remedy="close some, or ask another replica",
            headers={"Retry-After": "10"},
        )
    headers = Headers(scope=request.scope)
    peer = request.client.host if request.client else ""

    async def allowed() -> bool:
        try:
            return await api.tokens.authenticate(headers, peer, cookie_token(headers)) == who
        except Problem as problem:
            return problem.status == 503  # Redis is away, not the right

    return EventStream(api.hub, client, cursor, frozenset(kinds.split(",") if kinds else ()), allowed)
