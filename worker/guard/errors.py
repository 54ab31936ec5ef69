"""The errors a guard raises when nothing is left: livekit's own types, made anew from redacted values."""

from __future__ import annotations

from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from supervisor.wire.vocabulary import FaultKind, Phase, Role
from worker.guard.faults import Fault

_ATTRIBUTE = "_supervisor_fault"
_TIMEOUTS = frozenset({FaultKind.FIRST_OUTPUT_TIMEOUT, FaultKind.STALLED})


def api_error(fault: Fault) -> APIError:
    """livekit's error for a fault; not retryable, since the guard has tried all there is. See `guard_fault`."""
    text = f"{fault.kind.value}: {fault.message}" if fault.message else fault.kind.value
    error: APIError
    # 499 would make livekit's base class end the stream without a word to anybody.
    if 400 <= fault.status < 600 and fault.status != 499:
        error = APIStatusError(
            text, status_code=fault.status, request_id=fault.request_id or None, retryable=False
        )
    elif fault.kind in _TIMEOUTS:
        error = APITimeoutError(text, retryable=False)
    else:
        error = APIConnectionError(text, retryable=False)
    setattr(error, _ATTRIBUTE, fault)
    return error


def no_target(role: Role) -> APIError:
    """Nothing may be asked at all: the key of every target is refused."""
    return api_error(
        Fault(
            FaultKind.AUTHENTICATION,
            status=401,
            message=f"no {role.value} target may be asked, every key is refused",
            phase=Phase.CONNECT,
        )
    )


def guard_fault(error: BaseException) -> Fault | None:
    """The fault behind an error that a guard raised; None for other errors."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Fault) else None
