"""Incidents folded from `events`.

Rule: however often they are asked for, an entry of `events` is read and decoded once per process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supervisor.api.base import iso
from supervisor.api.incidents.schemas import IncidentOut, StepOut
from supervisor.api.records import id_order
from supervisor.wire.messages import Event

if TYPE_CHECKING:
    from supervisor.api.records import Records

MAX_STEPS = 200
# In chunks, so that reading all of it never keeps the loop from other requests for long.
_CHUNK = 500

Entry = tuple[str, Event]


@dataclass(slots=True)
class Incident:
    """What happened to one target; entries oldest first."""

    id: str
    target: str = ""
    events: list[Entry] = field(default_factory=list[Entry])


def fold(oldest_first: Iterable[Entry]) -> list[Incident]:
    """Events to incidents, newest incident first. Pure."""
    found: dict[str, Incident] = {}
    for entry_id, event in oldest_first:
        if event.incident:
            incident = found.setdefault(event.incident, Incident(event.incident))
            incident.events.append((entry_id, event))
            incident.target = event.target or incident.target
    return sorted(found.values(), key=lambda one: (one.events[0][1].at_ms, one.id), reverse=True)


def represent(incident: Incident, open_ids: frozenset[str]) -> IncidentOut:
    """An incident as REST shows it. `open_ids`: those that the leader's picture still names. Pure."""
    events = incident.events
    first, last = events[0][1], events[-1][1]
    is_open = incident.id in open_ids
    return IncidentOut(
        id=incident.id,
        target=incident.target,
        open=is_open,
        began_at=iso(first.at_ms),
        ended_at=None if is_open else iso(last.at_ms),
        duration_ms=max(0, last.at_ms - first.at_ms),
        reason=next((event.reason for _, event in events if event.reason), ""),
        evidence=next((event.evidence for _, event in events if event.evidence), first.evidence),
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


class IncidentBook:
    """The events of incidents that `events` still holds, brought up to date whenever somebody asks."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._entries: deque[Entry] = deque()
        self._read_to = ""
        self._reading = asyncio.Lock()

    async def all(self) -> list[Incident]:
        """Newest first. Raises redis-py's errors."""
        async with self._reading:
            await self._catch_up()
            return fold(self._entries)

    async def _catch_up(self) -> None:
        ends = await self._records.stream_ends("events")
        if ends is None or (self._read_to and id_order(ends[1]) < id_order(self._read_to)):
            # Emptied, or failed over to a server that was behind: what was read is not what is there.
            self._entries.clear()
            self._read_to = ""
        if ends is None:
            return
        while self._entries and id_order(self._entries[0][0]) < id_order(ends[0]):
            self._entries.popleft()
        while True:
            found, last, count = await self._records.stream_after("events", Event, self._read_to, _CHUNK)
            self._entries.extend(entry for entry in found if entry[1].incident)
            self._read_to = last or self._read_to
            if count < _CHUNK:
                return
