"""`/v1/fleet`."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter
from pydantic import Field

from supervisor.api.base import ApiDep, Out, View, iso, problems
from supervisor.wire.view import FleetView
from supervisor.wire.vocabulary import Role, State

router = APIRouter(tags=["fleet"])


class RoleOut(Out):
    """One role's targets by state."""

    role: Role
    targets: int
    admitted: int = Field(description="Targets that may be used at all.")
    states: dict[State, int]
    panic: bool = Field(description="Nothing healthy is left: all are admitted in order of evidence.")


class FleetOut(Out):
    """The fleet at one moment of Redis's clock."""

    fleet: str
    at: str | None
    leader: str
    epoch: int
    revision: int
    targets: int
    workers: int
    workers_flagged: int
    sessions: int
    roles: list[RoleOut]
    panic_roles: list[Role]
    settling_until: str | None = Field(description="After a gap in the reports: condemns nobody new before.")
    counters: dict[str, int] = Field(description="The engine's own counts since this leader began.")
    dead_entries: int = Field(description="Entries that could not be read and are kept.")


def roles_of(view: FleetView) -> list[RoleOut]:
    """Targets by role and state. Pure."""
    found: list[RoleOut] = []
    for role in Role:
        targets = [target for target in view.targets if target.role == role]
        if targets:
            found.append(
                RoleOut(
                    role=role,
                    targets=len(targets),
                    admitted=sum(1 for target in targets if target.admit > 0),
                    states=dict(Counter(target.state for target in targets)),
                    panic=role in view.panic_roles,
                )
            )
    return found


@router.get("/fleet", summary="The fleet in one glance", responses=problems(503))
async def get_fleet(api: ApiDep, view: View) -> FleetOut:
    """Who leads, how many workers, calls and targets, and whether anything is wrong."""
    return FleetOut(
        fleet=api.context.keys.fleet,
        at=iso(view.at_ms),
        leader=view.leader,
        epoch=view.epoch,
        revision=view.revision,
        targets=len(view.targets),
        workers=len(view.workers),
        workers_flagged=sum(1 for worker in view.workers if worker.flagged),
        sessions=sum(worker.sessions for worker in view.workers),
        roles=roles_of(view),
        panic_roles=list(view.panic_roles),
        settling_until=iso(view.settling_until_at_ms) if view.settling_until_at_ms > view.at_ms else None,
        counters=view.counters,
        dead_entries=await api.records.dead_entries(),
    )
