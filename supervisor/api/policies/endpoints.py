"""`/v1/policies`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from supervisor.api.base import Admin, Api, ApiDep, iso, problems
from supervisor.api.commands import Scalar
from supervisor.api.etags import IfMatch, check_if_match, etag
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.policies.schemas import PoliciesOut, PolicyIn, PolicyOut, RuleOut
from supervisor.api.problems import Problem, not_found
from supervisor.core.policy import PolicyError, check_scope, check_values, described
from supervisor.wire.messages import PolicyRecord
from supervisor.wire.targets import unescape_path

router = APIRouter(prefix="/policies", tags=["policies"])
_ERRORS = problems(400, 403, 404, 412, 422, 428, 503, 504)


def scope_of(
    scope: Annotated[
        str,
        Path(
            min_length=1,
            max_length=420,
            description="`fleet`, `role:<role>` or `target:<id>`, with `~` written `~0` and `/` written `~1`.",
            examples=["fleet", "role:llm", "target:llm:groq:llama-3.3-70b-versatile"],
        ),
    ],
) -> str:
    """The scope in a path. Raises `Problem` 400."""
    try:
        return check_scope(unescape_path(scope))
    except (PolicyError, UnicodeError):
        raise Problem(
            400,
            "bad-scope",
            "the scope must be fleet, role:<role> or target:<id>",
            remedy="for example fleet, role:llm, target:llm:groq:llama-3.3-70b-versatile",
        ) from None


ScopePath = Annotated[str, Depends(scope_of)]


def represent(record: PolicyRecord) -> PolicyOut:
    """A policy as REST shows it. Pure."""
    return PolicyOut(
        scope=record.scope,
        values=dict(record.values),
        reason=record.reason,
        actor=record.actor,
        set_at=iso(record.set_at_ms),
        version=record.version,
    )


def tag_of(record: PolicyRecord) -> str:
    """Its ETag; the moment belongs to it, since versions begin anew after a DELETE."""
    return etag(f"{record.set_at_ms}-{record.version}")


async def _read(api: Api, scope: str) -> PolicyRecord:
    record = (await api.records.policies()).get(scope)
    if record is None:
        raise not_found(f"a policy of {scope}", "the built-in numbers hold there; PUT sets others")
    return record


@router.get("", summary="Policies that were set", responses=problems(400, 503))
async def list_policies(api: ApiDep, limit: Limit = 100, cursor: Cursor = None) -> PoliciesOut:
    """Every scope with numbers of its own, and all numbers there are; elsewhere the built-in ones hold."""
    records = sorted((await api.records.policies()).values(), key=lambda record: record.scope)
    page, following = page_of(records, lambda record: record.scope, cursor, limit)
    rules = [
        RuleOut(name=rule.name, default=rule.default, low=rule.low, high=rule.high, text=rule.text)
        for rule in described()
    ]
    return PoliciesOut(items=[represent(record) for record in page], next=following, rules=rules)


@router.get("/{scope}", summary="A scope's policy", responses=problems(400, 404, 503))
async def get_policy(scope: ScopePath, api: ApiDep, response: Response) -> PolicyOut:
    """The numbers set for this scope, with their ETag."""
    record = await _read(api, scope)
    response.headers["ETag"] = tag_of(record)
    return represent(record)


def _args(scope: str, before: PolicyRecord | None) -> dict[str, Scalar]:
    # The leader compares again: between our look and its own, another operator may have been quicker.
    return {"scope": scope, "if_version": before.version if before is not None else 0}


@router.put("/{scope}", summary="Set a scope's policy", responses=_ERRORS)
async def put_policy(
    scope: ScopePath,
    body: PolicyIn,
    api: ApiDep,
    who: Admin,
    response: Response,
    if_match: IfMatch = None,
) -> PolicyOut:
    """Replace the scope's numbers. One that exists already is replaced only with If-Match."""
    before = (await api.records.policies()).get(scope)
    check_if_match(if_match, tag_of(before) if before else None, required=True)
    try:
        check_values(body.values)
    except PolicyError as exc:
        raise Problem(
            422,
            "invalid",
            f"body.values: {exc}"[:300],
            remedy="GET /v1/policies lists every number and its bounds",
        ) from None
    args = _args(scope, before)
    args["reason"] = body.reason
    await api.commands.send("policy.set", who.id, {**args, **body.values})
    record = await _read(api, scope)
    response.headers["ETag"] = tag_of(record)
    return represent(record)


@router.delete("/{scope}", status_code=204, summary="Back to the built-in numbers", responses=_ERRORS)
async def delete_policy(scope: ScopePath, api: ApiDep, who: Admin, if_match: IfMatch = None) -> None:
    """Take the scope's numbers back."""
    record = await _read(api, scope)
    check_if_match(if_match, tag_of(record), required=True)
    await api.commands.send("policy.clear", who.id, _args(scope, record))
