"""Faults put on the stand-ins: what one is, which request it hits, and the check of what an operator sends.

``share`` is spread evenly (an accumulator, as in Bresenham's line), so that 0.25 hits every fourth request
and a run repeats exactly. A fault on a model goes before one on its provider. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import msgspec

__all__ = ["PROVIDERS", "ROLES", "Fault", "FaultBook", "FaultError", "FaultKind", "parse_fault"]

FaultKind = Literal["ok", "status", "hang", "slow", "cut", "silent", "empty", "refuse"]
ROLES = ("stt", "llm", "tts", "check")
"""``check`` is what costs nothing: model lists, voices, the root page."""
PROVIDERS = ("groq", "openai", "cartesia")

_SERVED = {
    "groq": ("stt", "llm", "tts", "check"),
    "openai": ("stt", "llm", "tts", "check"),
    "cartesia": ("stt", "tts", "check"),
}
_KINDS: dict[str, tuple[str, ...]] = {
    "llm": ("ok", "status", "hang", "slow", "cut", "empty", "refuse"),
    "tts": ("ok", "status", "hang", "slow", "cut", "silent", "empty", "refuse"),
    "stt": ("ok", "status", "hang", "slow", "cut", "silent", "empty", "refuse"),
    "check": ("ok", "status", "hang", "slow", "refuse"),
}


class FaultError(ValueError):
    """That fault cannot be put on that target; the message says why in one sentence."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault.

    ``retry_after`` seconds, sent where the provider sends it; ``after_chunks`` output chunks before a cut (or,
    with ``mid_stream``, before the error of a ``status`` or the silence of a ``hang``); ``delay_s`` before the
    first output of ``slow``; ``code`` overrides the provider's own error code for a status; ``clean`` ends a cut
    LLM stream like a good one, without finish and usage.
    """

    fault: FaultKind = "ok"
    status: int = 503
    retry_after: float | None = None
    share: float = 1.0
    after_chunks: int = 3
    delay_s: float = 20.0
    code: str | None = None
    mid_stream: bool = False
    clean: bool = False


OK = Fault()


def parse_fault(role: str, provider: str, body: object) -> Fault:
    """A fault from JSON; FaultError with one clear sentence when anything in it is wrong."""
    check_target(role, provider)
    if not isinstance(body, dict):
        raise FaultError('the body must be a JSON object such as {"fault": "hang"}')
    given = cast("dict[str, object]", body)
    if "fault" not in given:
        raise FaultError(f"'fault' is missing; it is one of {', '.join(get_args(FaultKind))}")
    try:
        fault = msgspec.convert(given, Fault)
    except msgspec.ValidationError as error:
        raise FaultError(f"the fault cannot be read: {error}") from None
    if fault.fault not in _KINDS[role]:
        raise FaultError(f"'{fault.fault}' does not apply to {role}; it takes {', '.join(_KINDS[role])}")
    if not 400 <= fault.status <= 599:
        raise FaultError(f"'status' must be 400 to 599, not {fault.status}")
    if not 0.0 <= fault.share <= 1.0:
        raise FaultError(f"'share' must be 0 to 1, not {fault.share}")
    if not 0 <= fault.after_chunks <= 10_000:
        raise FaultError(f"'after_chunks' must be 0 to 10000, not {fault.after_chunks}")
    if not 0.0 <= fault.delay_s <= 3600.0:
        raise FaultError(f"'delay_s' must be 0 to 3600 seconds, not {fault.delay_s}")
    if fault.retry_after is not None and not 0.0 <= fault.retry_after <= 86_400.0:
        raise FaultError(f"'retry_after' must be 0 to 86400 seconds, not {fault.retry_after}")
    return fault


def check_target(role: str, provider: str) -> None:
    """FaultError unless that provider's stand-in serves that role."""
    if role not in ROLES:
        raise FaultError(f"there is no role '{role}'; it is one of {', '.join(ROLES)}")
    if provider not in PROVIDERS:
        raise FaultError(f"there is no stand-in for '{provider}'; there are {', '.join(PROVIDERS)}")
    if role not in _SERVED[provider]:
        raise FaultError(
            f"the stand-in for {provider} does not serve {role}; it serves {', '.join(_SERVED[provider])}"
        )


class _Entry:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._owed = 0.0

    def take(self) -> bool:
        """Whether the next request is one of the share."""
        self._owed += self.fault.share
        # Below 1 by a rounding error is due: 10 x 0.1 must hit once.
        if self._owed >= 1.0 - 1e-9:
            self._owed -= 1.0
            return True
        return False


class FaultBook:
    """The faults in force, by (role, provider, model); model "" stands for every model of the provider."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], _Entry] = {}

    def set(self, role: str, provider: str, model: str, fault: Fault) -> None:
        """Puts a fault on a target; ``ok`` on a model shields it from one on its provider."""
        check_target(role, provider)
        if fault.fault == "ok" and not model:
            self._entries.pop((role, provider, ""), None)
            return
        self._entries[role, provider, model] = _Entry(fault)

    def clear(self, role: str | None = None, provider: str | None = None, model: str | None = None) -> None:
        """Takes off every fault that fits what is given."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if (role is not None and key[0] != role)
            or (provider is not None and key[1] != provider)
            or (model is not None and key[2] != model)
        }

    def pick(self, role: str, provider: str, model: str) -> Fault:
        """The fault that the next request to a target meets; counts it against the share."""
        entry = self._entries.get((role, provider, model)) or self._entries.get((role, provider, ""))
        return entry.fault if entry is not None and entry.take() else OK

    def peek(self, role: str, provider: str, model: str) -> Fault:
        """The fault on a target, without counting a request."""
        entry = self._entries.get((role, provider, model)) or self._entries.get((role, provider, ""))
        return entry.fault if entry is not None else OK

    def items(self) -> list[dict[str, object]]:
        """Every fault in force as JSON-able objects."""
        return [
            {"role": role, "provider": provider, "model": model or None}
            | cast("dict[str, object]", msgspec.to_builtins(entry.fault))
            for (role, provider, model), entry in sorted(self._entries.items(), key=lambda item: item[0])
        ]
