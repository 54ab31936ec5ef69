"""Events and faults as the stream, the CLI and the pages show them. Pure."""

from __future__ import annotations

import msgspec

from supervisor.api.base import iso
from supervisor.api.faults.endpoints import represent
from supervisor.wire.messages import Event, FaultEvent


def event_json(entry_id: str, event: Event) -> dict[str, object]:
    """An event's members."""
    return {
        "id": entry_id,
        "kind": event.kind,
        "at": iso(event.at_ms),
        "target": event.target,
        "before": event.before,
        "after": event.after,
        "reason": event.reason,
        "revision": event.revision,
        "epoch": event.epoch,
        "worker": event.worker,
        "incident": event.incident,
        "evidence": event.evidence,
    }


def as_data(entry_id: str, found: Event | FaultEvent) -> tuple[str, bytes]:
    """The name of the server-sent event and its data as one line of JSON."""
    if isinstance(found, FaultEvent):
        fault = represent(entry_id, found).model_dump(mode="json")
        return "fault", msgspec.json.encode({**fault, "kind": "fault", "fault_kind": found.kind.value})
    # The name stands alone on a line of the protocol.
    name = "".join(char for char in found.kind if char.isalnum() or char in "_-") or "event"
    return name, msgspec.json.encode(event_json(entry_id, found))
