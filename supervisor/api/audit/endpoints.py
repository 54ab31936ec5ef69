"""`/v1/audit`."""

from __future__ import annotations

from fastapi import APIRouter

from supervisor.api.base import ApiDep, Operator, Out, Page, iso, problems
from supervisor.api.paging import Cursor, Limit, make_cursor, read_stream_cursor
from supervisor.wire.messages import Audit

router = APIRouter(tags=["audit"])


class AuditOut(Out):
    """One change, or one that was refused."""

    id: str
    at: str | None
    actor: str
    op: str
    subject: str
    detail: str
    status: int


@router.get("/audit", summary="Changes by operators, newest first", responses=problems(400, 403, 503))
async def list_audit(api: ApiDep, who: Operator, limit: Limit = 100, cursor: Cursor = None) -> Page[AuditOut]:
    """The newest 50,000 changes. For operators and admins."""
    del who
    last = read_stream_cursor(cursor)
    entries, following = await api.records.stream_page("audit", Audit, limit, last)
    items = [
        AuditOut(
            id=entry_id,
            at=iso(audit.at_ms),
            actor=audit.actor,
            op=audit.op,
            subject=audit.subject,
            detail=audit.detail,
            status=audit.status,
        )
        for entry_id, audit in entries
    ]
    return Page(items=items, next=make_cursor(following) if following else None)
