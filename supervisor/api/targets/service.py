"""From the leader's picture to representations of targets. Pure."""

from __future__ import annotations

from supervisor.api.base import iso
from supervisor.api.targets.schemas import TargetOut
from supervisor.wire.view import TargetView


def represent(target: TargetView) -> TargetOut:
    """One target as REST shows it."""
    return TargetOut(
        id=target.id,
        role=target.role,
        provider=target.provider,
        model=target.model,
        state=target.state,
        override=target.override,
        since=iso(target.since_at_ms),
        reason=target.reason,
        revision=target.revision,
        admit=min(1.0, max(0.0, target.admit)),
        rank=target.rank,
        attempts=target.attempts,
        faults=target.faults,
        fault_rate=round(target.fault_rate, 4),
        attempts_60s=target.attempts_60s,
        faults_60s=target.faults_60s,
        fault_rate_60s=round(target.fault_rate_60s, 4),
        faults_by_kind_60s=target.faults_by_kind_60s,
        workers=target.workers,
        sessions=target.sessions,
        in_flight=target.in_flight,
        overdue=target.overdue,
        first_output_p50_ms=target.first_output_p50_ms,
        first_output_p95_ms=target.first_output_p95_ms,
        hold_off_until=iso(target.hold_off_until_at_ms),
        next_probe_at=iso(target.next_probe_at_ms),
        probes_in_flight=target.probes_in_flight,
        incident=target.incident or None,
        panic=target.panic,
        evidence=target.evidence,
        condemned_keys=list(target.condemned_keys),
    )
