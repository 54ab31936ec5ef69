"""Answers of providers' cheap endpoints and status pages, read into hints. Pure, and never believing anything.

A 200 of a models list proves host and key only; a status page lags. So a hint stands beside the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

MAX_DETAIL: Final = 200

# Atlassian Statuspage's indicators, and what they mean for calls.
_INDICATORS: Final = {"none": True, "minor": True, "maintenance": True, "major": False, "critical": False}


class Hint(NamedTuple):
    """What one look said. ok None: nothing can be learnt from it."""

    ok: bool | None
    detail: str


def clean(text: str) -> str:
    """One printable line of at most 200 characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:MAX_DETAIL]


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def parse_summary(data: object) -> Hint:
    """A status page's `summary.json` or `status.json` (Atlassian's shape).

    Only `major` and `critical` speak against a provider: `minor` is mostly about something else.
    """
    status = _mapping(_mapping(data).get("status"))
    indicator = status.get("indicator")
    if not isinstance(indicator, str) or indicator not in _INDICATORS:
        return Hint(None, "the status page could not be read")
    parts = [f"{indicator}: {status.get('description') or 'no description'}"]
    for incident in _sequence(_mapping(data).get("incidents"))[:3]:
        name = _mapping(incident).get("name")
        if isinstance(name, str) and _mapping(incident).get("status") not in {"resolved", "postmortem"}:
            parts.append(name)
    return Hint(_INDICATORS[indicator], clean("; ".join(parts)))


def parse_answer(status: int, data: object = None) -> Hint:
    """The answer of a cheap endpoint called with the key. Its body is used for Cartesia's `ok` alone."""
    if 200 <= status < 300:
        if _mapping(data).get("ok") is False:
            return Hint(False, f"answered {status}, but says that it is not ok")
        return Hint(True, f"answered {status}")
    if status == 401:
        return Hint(False, "refuses the key (401)")
    if status == 402:
        return Hint(False, "has no credit left (402)")
    if status == 403:
        return Hint(False, "forbids this key (403)")
    if status == 429:
        # The host works and knows the key: too many requests is what limits are for.
        return Hint(True, "answered 429: rate limited")
    if status >= 500 or status == 498:
        return Hint(False, f"answered {status}")
    return Hint(None, f"answered {status}, which says nothing")
