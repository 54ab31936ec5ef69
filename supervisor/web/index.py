"""What the index page shows: the leader's picture, who says what about it, and the newest verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.api.base import ROLE_ORDER, in_order
from supervisor.wire.keys import is_worker
from supervisor.wire.messages import Event, SessionInfo
from supervisor.wire.view import FleetView, TargetView
from supervisor.wire.vocabulary import FaultKind, Role

if TYPE_CHECKING:
    from supervisor.api.base import Api

MAX_WORKERS = 50
MAX_EVENTS = 20
MAX_CALLS = 20
_EVENTS_READ = 200
_SHOWN = frozenset({"verdict", "alarm", "gap", "leader", "operator", "worker"})
_NAMES = {
    Role.STT: "Speech to text",
    Role.LLM: "Language model",
    Role.TTS: "Text to speech",
    Role.REALTIME: "Realtime",
}

# How a call's outcome is coloured, as the state of a service. An application may have outcomes of its own.
_CALM = {"ok": "healthy"}
_NOTICED = {
    "recovered": "degraded",
    "transferred": "degraded",
    "gave_up": "unhealthy",
    "failed": "unhealthy",
    "lost": "unhealthy",
}


class EndedCall(NamedTuple):
    """A row of the last calls. errors: (role, number, kinds). noticed: the caller heard that something failed."""

    info: SessionInfo
    errors: list[tuple[str, int, str]]
    noticed: bool
    tone: str
    linked: bool


def ended_call(info: SessionInfo) -> EndedCall:
    """What the page says of a call that ended. Pure."""
    order = {role.value: n for role, n in ROLE_ORDER.items()}
    return EndedCall(
        info,
        errors=[
            (role.upper() if role in order else role, sum(kinds.values()), in_words(kinds))
            for role, kinds in sorted(info.errors.items(), key=lambda item: (order.get(item[0], 9), item[0]))
            if any(kinds.values())
        ],
        noticed=info.apologies > 0 or info.outcome in _NOTICED,
        tone=_NOTICED.get(info.outcome) or _CALM.get(info.outcome, ""),
        linked=is_worker(info.session),  # no other id has an address in REST
    )


def in_words(kinds: Mapping[FaultKind, int]) -> str:
    """2 server, 1 first output timeout. Pure."""
    counted = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {kind.value.replace('_', ' ')}" for kind, number in counted if number)


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
            "events": [], "calls": [], "overrides": [], "checks": []}  # fmt: skip


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
    ended, _ = await api.records.stream_page("sessions:ended", SessionInfo, MAX_CALLS)
    workers = sorted(view.workers, key=lambda worker: (not worker.flagged, worker.worker))
    return {
        "fleet": fleet,
        "view": view,
        "banners": banners(view),
        "roles": by_role(view),
        "workers": workers[:MAX_WORKERS],
        "more_workers": max(0, len(workers) - MAX_WORKERS),
        "events": [event for _, event in events if event.kind in _SHOWN][:MAX_EVENTS],
        "calls": [ended_call(info) for _, info in ended],
        "overrides": sorted((await api.records.overrides()).values(), key=lambda record: record.scope),
        "checks": await api.records.checks(),
    }
