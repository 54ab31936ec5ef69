"""Incidents folded from `events`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from supervisor.api.base import iso
from supervisor.api.incidents.schemas import IncidentOut, StepOut
from supervisor.wire.messages import Event

MAX_STEPS = 200


@dataclass(slots=True)
class _Incident:
    id: str
    target: str = ""
    events: list[tuple[str, Event]] = field(default_factory=list[tuple[str, Event]])


def _represent(incident: _Incident, open_ids: frozenset[str]) -> IncidentOut:
    events = incident.events  # oldest first
    first, last = events[0][1], events[-1][1]
    is_open = incident.id in open_ids
    evidence = next((event.evidence for _, event in events if event.evidence), first.evidence)
    return IncidentOut(
        id=incident.id,
        target=incident.target,
        open=is_open,
        began_at=iso(first.at_ms),
        ended_at=None if is_open else iso(last.at_ms),
        duration_ms=max(0, last.at_ms - first.at_ms),
        reason=next((event.reason for _, event in events if event.reason), ""),
        evidence=evidence,
        states=[event.after for _, event in events if event.kind == "verdict" and event.after][-MAX_STEPS:],
        steps=[
            StepOut(
                id=entry_id,
                at=iso(event.at_ms),
                kind=event.kind,
                before=event.before,
                after=event.after,
                reason=event.reason,
                revision=event.revision,
                worker=event.worker,
            )
            for entry_id, event in events[-MAX_STEPS:]
        ],
    )


def fold(newest_first: Iterable[tuple[str, Event]], open_ids: frozenset[str]) -> list[IncidentOut]:
    """Events to incidents, newest incident first. `open_ids`: those that the leader's picture still names."""
    found: dict[str, _Incident] = {}
    for entry_id, event in newest_first:
        if not event.incident:
            continue
        incident = found.setdefault(event.incident, _Incident(event.incident))
        incident.events.insert(0, (entry_id, event))
        incident.target = event.target or incident.target
    represented = [_represent(incident, open_ids) for incident in found.values()]
    return sorted(represented, key=lambda incident: (incident.began_at or "", incident.id), reverse=True)
