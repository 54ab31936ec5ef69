"""Cut what a job hands over to what the contract allows, so that no field of it makes a message unreadable."""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.wire.messages import FaultEvent, SessionInfo

_UNKNOWN: Final = "-"  # stands where the contract wants at least one character
_COUNT_MAX: Final = 2**53


def _id(text: str) -> str:
    return text[:128] or _UNKNOWN


def _count(number: int) -> int:
    return min(max(int(number), 0), _COUNT_MAX)


def clip_event(event: FaultEvent) -> FaultEvent:
    """The event within the contract's lengths."""
    return msgspec.structs.replace(
        event,
        at_ms=_count(event.at_ms),
        worker=_id(event.worker),
        host=_id(event.host),
        target=event.target[:200].ljust(5, "-"),
        session=event.session[:128],
        turn=_count(event.turn),
        request_id=event.request_id[:128],
        attempt=_count(event.attempt),
        action=event.action[:64],
        message=event.message[:300],
        waited_ms=_count(event.waited_ms),
    )


def clip_session(info: SessionInfo) -> SessionInfo:
    """The session's record within the contract's lengths."""
    return msgspec.structs.replace(
        info,
        session=_id(info.session),
        worker=_id(info.worker),
        started_at_ms=_count(info.started_at_ms),
        ended_at_ms=_count(info.ended_at_ms),
        turns=_count(info.turns),
        failovers=_count(info.failovers),
        apologies=_count(info.apologies),
        longest_silence_ms=_count(info.longest_silence_ms),
        outcome=info.outcome[:64],
    )
