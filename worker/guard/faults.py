"""What is kept of an exception: plain, redacted values. The exception itself may hold the API key."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.wire.vocabulary import KIND_RULES, CountsAgainst, FaultKind, Phase


@dataclass(frozen=True, slots=True)
class Fault:
    """How an attempt went wrong.

    status: HTTP status or WebSocket close code (0: none). retry_after_ms: what the provider asked for.
    message: redacted, at most 300 characters. phase: where in the attempt it happened.
    """

    kind: FaultKind
    status: int = 0
    request_id: str = ""
    retry_after_ms: int = 0
    message: str = ""
    phase: Phase = Phase.CONNECT

    @property
    def counts(self) -> CountsAgainst:
        """What this fault is evidence against."""
        return KIND_RULES[self.kind].counts
