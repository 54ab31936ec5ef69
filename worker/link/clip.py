"""Cut what a job hands over to what the contract allows, so that no field of it makes a message unreadable."""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.wire.messages import FaultEvent, ProbeResult, SessionInfo

_UNKNOWN: Final = "-"  # stands where the contract wants at least one character
_COUNT_MAX: Final = 2**53


def _text(text: str, most: int) -> str:
    """Also without lone surrogates (half an emoji out of somebody's JSON): they cannot be encoded."""
    return text[:most].encode("utf-8", "replace").decode()


def _id(text: str) -> str:
    return _text(text, 128) or _UNKNOWN


def _count(number: int) -> int:
    return min(max(int(number), 0), _COUNT_MAX)


def clip_event(event: FaultEvent) -> FaultEvent:
    """The event within the contract's lengths."""
    return msgspec.structs.replace(
        event,
        at_ms=_count(event.at_ms),
        worker=_id(event.worker),
        host=_id(event.host),
        target=_text(event.target, 200).ljust(5, "-"),
        session=_text(event.session, 128),
        turn=_count(event.turn),
        request_id=_text(event.request_id, 128),
        attempt=_count(event.attempt),
        action=_text(event.action, 64),
        message=_text(event.message, 300),
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
        outcome=_text(info.outcome, 64),
        targets={_text(role, 64): _text(target, 200) for role, target in info.targets.items()},
    )


def clip_result(result: ProbeResult) -> ProbeResult:
    """A probe's result within the contract's lengths."""
    return msgspec.structs.replace(result, message=_text(result.message, 300))
