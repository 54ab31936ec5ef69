"""The stand-ins' memory of what they were asked: the newest 50,000 requests."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Literal, cast

import msgspec

__all__ = ["CAPACITY", "PROBE_MARK", "Ledger", "Request"]

CAPACITY = 50_000
PROBE_MARK = "livekit-supervisor-probe"
"""A request that carries this as its ``user``, ``safety_identifier``, in query or headers is a probe."""

Outcome = Literal["open", "ok", "fault", "abandoned"]


class Request(msgspec.Struct, kw_only=True):
    """One request as the stand-in saw it.

    ``kind``: chat, transcription, speech, context (one TTS context on a socket), connection (an STT socket,
    or a TTS socket that was refused), utterance (one turn on an STT socket), models, voices, root. ``at`` and
    ``ended_at`` are wall time in ms; ``status`` is the HTTP status sent (None: nothing was); ``outcome``
    ``abandoned``: the client left first.
    """

    number: int
    at: int
    kind: str
    role: str
    provider: str
    model: str
    fault: str = "ok"
    status: int | None = None
    probe: bool = False
    outcome: Outcome = "open"
    ended_at: int | None = None
    first_output_ms: int | None = None

    def sent_first(self) -> None:
        """Notes the first output."""
        if self.first_output_ms is None:
            self.first_output_ms = now_ms() - self.at

    def end(self, outcome: Outcome) -> None:
        """Notes how it ended; only the first end counts."""
        if self.outcome == "open":
            self.outcome = outcome
            self.ended_at = now_ms()


def now_ms() -> int:
    """Wall time in milliseconds."""
    return time.time_ns() // 1_000_000


class Ledger:
    """A bounded list of requests, newest last."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._items: deque[Request] = deque(maxlen=capacity)
        self._number = 0

    def open(
        self, kind: str, role: str, provider: str, model: str, *, fault: str = "ok", probe: bool = False
    ) -> Request:
        """Notes a request that has just come in."""
        self._number += 1
        request = Request(
            number=self._number,
            at=now_ms(),
            kind=kind,
            role=role,
            provider=provider,
            model=model,
            fault=fault,
            probe=probe,
        )
        self._items.append(request)
        return request

    def clear(self) -> None:
        """Forgets all requests."""
        self._items.clear()

    def select(
        self,
        *,
        role: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        kind: str | None = None,
        fault: str | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> list[Request]:
        """The newest requests that fit, oldest first; ``since`` in ms of wall time, inclusive."""
        found = [
            item
            for item in self._items
            if (role is None or item.role == role)
            and (provider is None or item.provider == provider)
            and (model is None or item.model == model)
            and (kind is None or item.kind == kind)
            and (fault is None or item.fault == fault)
            and (since is None or item.at >= since)
        ]
        return found if limit is None else found[max(0, len(found) - limit) :]


def as_json(items: Iterable[Request]) -> dict[str, object]:
    """``{"items": [...], "per_second": {"<epoch second>": count}}``."""
    items = list(items)
    seconds = Counter(item.at // 1000 for item in items)
    return {
        "items": cast("list[object]", msgspec.to_builtins(items)),
        "per_second": {str(second): count for second, count in sorted(seconds.items())},
    }
