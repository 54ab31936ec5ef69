"""Representations of targets."""

from __future__ import annotations

from pydantic import Field

from supervisor.api.base import Out
from supervisor.wire.vocabulary import FaultKind, OverrideState, Role, State


class TargetOut(Out):
    """One target now. Counts are over the whole fleet; times are RFC 3339, UTC, Redis's clock."""

    id: str = Field(description="role:provider:model")
    role: Role
    provider: str
    model: str
    state: State = Field(description="The engine's verdict.")
    override: OverrideState | None = Field(description="An operator's verdict that lies over it.")
    since: str | None = Field(description="Since when the state holds.")
    reason: str = Field(description="Why, in words.")
    revision: int = Field(description="Revision of the strategy that workers were sent.")
    admit: float = Field(ge=0, le=1, description="Share of sessions that may use it.")
    rank: int = Field(description="Order within the role; 0 is tried first.")
    attempts: int = Field(description="Attempts begun in the last 10 s.")
    faults: int = Field(description="Attempts that went wrong in the last 10 s.")
    fault_rate: float = Field(description="Faults among those that ended in the last 10 s.")
    attempts_60s: int
    faults_60s: int
    fault_rate_60s: float
    faults_by_kind_60s: dict[FaultKind, int]
    workers: int = Field(description="Worker containers that use it.")
    sessions: int = Field(description="Calls that have it among their targets.")
    in_flight: int
    overdue: int = Field(description="Attempts waiting longer than they should.")
    first_output_p50_ms: int
    first_output_p95_ms: int
    hold_off_until: str | None = Field(description="Nothing is sent before (429, Retry-After).")
    next_probe_at: str | None
    probes_in_flight: int
    incident: str | None
    panic: bool = Field(description="Admitted only because nothing else of the role is left.")
    evidence: dict[str, float | int | str] = Field(description="The rule behind the verdict and its numbers.")
    condemned_keys: list[str] = Field(description="Fingerprints of keys that may not be used with it.")


class HistoryPoint(Out):
    """Counts of one interval over the whole fleet."""

    at: str | None = Field(description="Start of the interval.")
    attempts: int = Field(description="Begun in it.")
    ok: int
    faults: int
    faults_by_kind: dict[str, int]
    fault_rate: float = Field(description="Faults among the finished.")
    abandoned: int
    first_output_p50_ms: int | None
    first_output_p95_ms: int | None


class HistoryOut(Out):
    """A target's past: points of `step_s` seconds, oldest first; intervals without attempts are left out."""

    target: str
    step_s: int
    items: list[HistoryPoint]
    next: str | None = None


class ProbeOut(Out):
    """A probe was asked for."""

    target: str
    detail: str
    revision: int
