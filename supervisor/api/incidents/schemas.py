"""Representations of incidents."""

from __future__ import annotations

from pydantic import Field

from supervisor.api.base import Out


class StepOut(Out):
    """One event of an incident."""

    id: str
    at: str | None
    kind: str
    before: str
    after: str
    reason: str
    revision: int
    worker: str


class IncidentOut(Out):
    """An incident: what happened to one target, in order."""

    id: str
    target: str
    open: bool
    began_at: str | None
    ended_at: str | None
    duration_ms: int = Field(description="Until its end, or its newest event while it is open.")
    reason: str = Field(description="Why the target was condemned first.")
    evidence: dict[str, float | int | str]
    states: list[str] = Field(description="The states it went through.")
    steps: list[StepOut]
