"""Setting, reading and taking back overrides. A scope is a target id or `provider:<name>`."""

from __future__ import annotations

import unicodedata

from supervisor.api.auth import Principal
from supervisor.api.base import Api, iso
from supervisor.api.commands import Scalar
from supervisor.api.etags import check_if_match, etag
from supervisor.api.overrides.schemas import OverrideIn, OverrideOut
from supervisor.api.problems import Problem, not_found
from supervisor.wire.messages import OverrideRecord


def represent(record: OverrideRecord, revision: int = 0) -> OverrideOut:
    """An override as REST shows it."""
    return OverrideOut(
        scope=record.scope,
        state=record.state,
        reason=record.reason,
        actor=record.actor,
        set_at=iso(record.set_at_ms),
        expires_at=iso(record.expires_at_ms),
        version=record.version,
        revision=revision,
    )


def tag_of(record: OverrideRecord) -> str:
    """Its ETag: the moment belongs to it, since versions begin anew when an override has run out."""
    return etag(f"{record.set_at_ms}-{record.version}")


def _args(scope: str, before: OverrideRecord | None, if_match: str | None) -> dict[str, Scalar]:
    args: dict[str, Scalar] = {"scope": scope}
    if if_match is not None and before is not None:
        # The leader compares again: between our look and its own, another operator may have been quicker.
        args["if_version"] = before.version
    return args


async def read(api: Api, scope: str) -> OverrideRecord:
    """The override of a scope. Raises `Problem` 404."""
    record = await api.records.override(scope)
    if record is None:
        raise not_found(f"an override of {scope}", "GET /v1/overrides lists those in force")
    return record


async def put(
    api: Api, who: Principal, scope: str, body: OverrideIn, if_match: str | None
) -> tuple[OverrideOut, str]:
    """Set it through the leader; the new representation and its ETag."""
    if any(unicodedata.category(char) == "Cc" for char in body.reason):
        raise Problem(422, "invalid", "body.reason: must not hold control characters")
    before = await api.records.override(scope)
    check_if_match(if_match, tag_of(before) if before else None)
    args = _args(scope, before, if_match)
    args.update({"state": body.state.value, "reason": body.reason, "ttl_s": body.ttl_s})
    reply = await api.commands.send("override.set", who.id, args)
    record = await api.records.override(scope)
    if record is None:
        raise Problem(
            409, "conflict", "the override was set and is gone again", remedy="GET /v1/audit tells by whom"
        )
    return represent(record, reply.revision), tag_of(record)


async def delete(api: Api, who: Principal, scope: str, if_match: str | None) -> None:
    """Take it back through the leader. Raises `Problem` 404 when there is none."""
    record = await read(api, scope)
    check_if_match(if_match, tag_of(record))
    await api.commands.send("override.clear", who.id, _args(scope, record, if_match))
