"""`/v1/tokens`, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from supervisor.api.auth import LOCAL
from supervisor.api.base import Admin, ApiDep, In, Out, Page, iso, problems
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.problems import Problem, not_found
from supervisor.api.tokens.service import MAX_TOKENS, make
from supervisor.wire.vocabulary import TokenRole

router = APIRouter(prefix="/tokens", tags=["tokens"])
_YEAR_S = 366 * 86_400


class TokenIn(In):
    """A token to be made."""

    role: TokenRole
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = Field(
        "", description="Whose it is, or what for."
    )
    ttl_s: int | None = Field(None, ge=60, le=10 * _YEAR_S, strict=True, description="Runs out; none: never.")


class TokenOut(Out):
    """A token, without the token."""

    id: str
    role: TokenRole
    note: str
    created_at: str | None
    expires_at: str | None


class NewTokenOut(Out):
    """A new token. Only its digest is kept: this answer is the only time it can be read."""

    id: str
    role: TokenRole
    token: str


@router.get("", summary="All tokens", responses=problems(403, 503))
async def list_tokens(api: ApiDep, who: Admin, limit: Limit = 100, cursor: Cursor = None) -> Page[TokenOut]:
    """Every token's id, role and note."""
    del who
    page, following = page_of(await api.records.tokens(), lambda record: record.id, cursor, limit)
    items = [
        TokenOut(
            id=record.id,
            role=record.role,
            note=record.note,
            created_at=iso(record.created_at_ms),
            expires_at=iso(record.expires_at_ms),
        )
        for record in page
    ]
    return Page(items=items, next=following)


@router.post("", status_code=201, summary="Make a token", responses=problems(403, 409, 422, 503, 504))
async def create_token(body: TokenIn, api: ApiDep, who: Admin) -> NewTokenOut:
    """Make a token and show it this once. The first of a fleet must be an admin's."""
    if who == LOCAL and body.role is not TokenRole.ADMIN:
        raise Problem(
            409,
            "conflict",
            "the first token must be an admin's: with any token, open access from this machine ends",
            remedy="make an admin token, then this one with it",
        )
    if len(await api.records.tokens()) >= MAX_TOKENS:
        raise Problem(
            409, "conflict", f"there are {MAX_TOKENS} tokens already", remedy="revoke those not in use"
        )
    token_id, token = await make(api.commands, who.id, body.role, body.note, body.ttl_s)
    return NewTokenOut(id=token_id, role=body.role, token=token)


@router.delete(
    "/{token_id}", status_code=204, summary="Revoke a token", responses=problems(403, 404, 503, 504)
)
async def delete_token(
    token_id: Annotated[str, Path(min_length=1, max_length=128)], api: ApiDep, who: Admin
) -> None:
    """Revoke a token; it is refused everywhere within a second."""
    if all(record.id != token_id for record in await api.records.tokens()):
        raise not_found(f"token {token_id}", "GET /v1/tokens lists them")
    await api.commands.send("token.delete", who.id, {"id": token_id})
