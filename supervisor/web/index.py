"""What the index page shows: the leader's picture, who says what about it, and the newest verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.api.base import ROLE_ORDER, in_order
from supervisor.wire.messages import Event
from supervisor.wire.view import FleetView, TargetView
from supervisor.wire.vocabulary import Role

if TYPE_CHECKING:
    from supervisor.api.base import Api

MAX_WORKERS = 50
MAX_EVENTS = 20
_EVENTS_READ = 200
_SHOWN = frozenset({"verdict", "alarm", "gap", "leader", "operator", "worker"})
_NAMES = {
    Role.STT: "Speech to text",
    Role.LLM: "Language model",
    Role.TTS: "Text to speech",
    Role.REALTIME: "Realtime",
}


def banners(view: FleetView) -> list[tuple[str, str]]:
    """What must not be missed: (kind, text). Pure."""
    found: list[tuple[str, str]] = []
    for role in view.panic_roles:
        text = f"{_NAMES[role]}: nothing healthy is left. All are tried, the best evidence first."
        found.append(("panic", text))
    if view.settling_until_at_ms > view.at_ms:
        seconds = (view.settling_until_at_ms - view.at_ms + 999) // 1000
        found.append(("gap", f"Reports had a gap: nothing new is condemned for {seconds} s."))
    flagged = [worker.worker for worker in view.workers if worker.flagged]
    if flagged:
        found.append(("worker", "Looks broken itself: " + ", ".join(flagged[:5])))
    return found


def nothing(fleet: str, why: str) -> dict[str, Any]:
    """The page's content when there is no picture."""
    return {"fleet": fleet, "view": None, "banners": [("panic", why)], "roles": [], "workers": [], "more_workers": 0,
            "events": [], "overrides": [], "checks": []}  # fmt: skip


def by_role(view: FleetView) -> list[tuple[str, list[TargetView]]]:
    """Targets in rank order under their role's name. Pure."""
    targets = in_order(view)
    return [
        (_NAMES[role], found)
        for role in sorted(Role, key=lambda role: ROLE_ORDER[role])
        if (found := [target for target in targets if target.role == role])
    ]


async def read(api: Api) -> dict[str, Any]:
    """The page's content. Raises redis-py's errors."""
    view = await api.records.view()
    fleet = api.context.keys.fleet
    if view is None:
        return nothing(fleet, "No supervisor leads this fleet. A standby takes over within 3 s.")
    events, _ = await api.records.stream_page("events", Event, _EVENTS_READ)
    workers = sorted(view.workers, key=lambda worker: (not worker.flagged, worker.worker))
    return {
        "fleet": fleet,
        "view": view,
        "banners": banners(view),
        "roles": by_role(view),
        "workers": workers[:MAX_WORKERS],
        "more_workers": max(0, len(workers) - MAX_WORKERS),
        "events": [event for _, event in events if event.kind in _SHOWN][:MAX_EVENTS],
        "overrides": sorted((await api.records.overrides()).values(), key=lambda record: record.scope),
        "checks": await api.records.checks(),
    }
