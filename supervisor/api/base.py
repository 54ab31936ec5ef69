"""What every capability of the REST face uses: the parts of the process, the caller, the view, times in JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, cast

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from supervisor.api.auth import Principal
from supervisor.api.problems import PROBLEM_SCHEMA, Problem, no_leader, not_found
from supervisor.wire.targets import TargetError, parse_target, unescape_path
from supervisor.wire.view import FleetView, TargetView
from supervisor.wire.vocabulary import Role, TokenRole

if TYPE_CHECKING:
    from supervisor.api.auth import TokenBook
    from supervisor.api.commands import Commands
    from supervisor.api.incidents.service import IncidentBook
    from supervisor.api.metrics import Metrics
    from supervisor.api.records import Records
    from supervisor.api.stream.hub import Hub
    from supervisor.runtime.context import SupervisorContext

T = TypeVar("T")

ROLE_ORDER = {Role.STT: 0, Role.LLM: 1, Role.TTS: 2, Role.REALTIME: 3}


@dataclass(frozen=True, slots=True)
class Api:
    """The parts that requests use; made once per process."""

    context: SupervisorContext
    records: Records
    commands: Commands
    tokens: TokenBook
    hub: Hub
    metrics: Metrics
    incidents: IncidentBook


class Out(BaseModel):
    """A representation that goes out."""

    model_config = ConfigDict(frozen=True)


class In(BaseModel):
    """A body that comes in: unknown members are an error, so that a typo is not silently nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Out, Generic[T]):
    """A page of a list."""

    items: list[T]
    next: str | None = Field(None, description="`cursor` of the next page; null on the last.")


def api_of(request: Request) -> Api:
    """The process's parts."""
    return cast("Api", request.app.state.api)


def principal_of(request: Request) -> Principal:
    """The caller, as the outer layer found it. A closed route without one is a bug, and is refused."""
    found = cast("Any", request.scope.get("state") or {}).get("principal")
    if not isinstance(found, Principal):
        raise Problem(401, "unauthorized", "a bearer token is needed")
    return found


def require(role: TokenRole) -> Callable[[Request], Principal]:
    """A dependency that lets in `role` and those above it; 403 for others."""

    def check(request: Request) -> Principal:
        principal = principal_of(request)
        if not principal.may(role):
            raise Problem(
                403,
                "forbidden",
                f"this needs the role {role}; the token has {principal.role}",
                remedy=f"use a token with the role {role}",
            )
        return principal

    return check


ApiDep = Annotated["Api", Depends(api_of)]
Viewer = Annotated[Principal, Depends(require(TokenRole.VIEWER))]
Operator = Annotated[Principal, Depends(require(TokenRole.OPERATOR))]
Admin = Annotated[Principal, Depends(require(TokenRole.ADMIN))]


async def current_view(api: ApiDep) -> FleetView:
    """The leader's picture. Raises `Problem` 503 when nobody leads."""
    view = await api.records.view()
    if view is None:
        raise no_leader()
    return view


View = Annotated[FleetView, Depends(current_view)]


def target_id_of(
    target_id: Annotated[
        str,
        Path(
            min_length=1,
            max_length=400,
            description="`role:provider:model`, with `~` written `~0` and `/` written `~1`.",
            examples=["llm:groq:llama-3.3-70b-versatile", "tts:groq:canopylabs~1orpheus-v1-english"],
        ),
    ],
) -> str:
    """The target id in a path. Raises `Problem` 400 when it is none."""
    found = unescape_path(target_id)
    try:
        parse_target(found)
    except (TargetError, UnicodeError) as exc:
        detail = str(exc) if isinstance(exc, TargetError) else "the target id is not valid text"
        raise Problem(
            400,
            "bad-target-id",
            detail,
            remedy="write role:provider:model, with ~ as ~0 and / as ~1, as GET /v1/targets lists them",
        ) from None
    return found


TargetIdPath = Annotated[str, Depends(target_id_of)]


def find_target(view: FleetView, target_id: str) -> TargetView:
    """The target in the picture. Raises `Problem` 404."""
    for target in view.targets:
        if target.id == target_id:
            return target
    raise not_found(f"target {target_id}", "GET /v1/targets lists the targets that workers report")


def in_order(view: FleetView) -> list[TargetView]:
    """Targets by role, then in rank order."""
    return sorted(view.targets, key=lambda t: (ROLE_ORDER.get(t.role, 9), t.rank, t.id))


def iso(at_ms: int) -> str | None:
    """Redis time in ms as RFC 3339 in UTC with milliseconds; None for 0 (never) and for what is no date."""
    if at_ms <= 0:
        return None
    try:
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's description says of its errors."""
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA}}
    return {status: {"description": "Problem details", "content": content} for status in statuses}
