"""The face the link shows to a job: what guarded calls need, and nothing that waits.

Rule: every method here returns at once, does no I/O, takes no lock, and never raises into the call.
`worker.link.client.SocketLink` speaks it over the container's Unix socket, in a process of its own
`worker.link.embedded.EmbeddedLink` does; both are made by `worker.link.connect()`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from supervisor.wire.messages import Directive, FaultEvent, ProbeResult, SessionInfo, Snapshot
from supervisor.wire.vocabulary import FaultKind, Role


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A target this process holds. `order` is the user's own order within the role, 0 first.

    key_fp: HMAC fingerprint of the API key in use ("" when unknown), never the key.
    """

    id: str
    order: int
    key_fp: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one target right now in this process: the leader's snapshot and the container's breaker.

    hold_off_until_mono / local_open_until_mono: CLOCK_MONOTONIC seconds (0.0: none); one clock a host.
    stale: the snapshot's time to live is over, or none was ever read: built-in defaults are in force.
    retry_allowed: the container's retry budget for this target is above half.
    """

    snapshot: Snapshot
    hold_off_until_mono: float = 0.0
    local_open_until_mono: float = 0.0
    retry_allowed: bool = True
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """One immutable picture of everything; replaced whole when anything changes.

    clock_offset_ms: Redis TIME minus this host's wall clock, so that `started_at_ms` of a session can be put
    beside `since_at_ms` of a snapshot. `supervisor.core.admission.Router` routes over `by_target`.
    """

    revision: int = 0
    epoch: int = 0
    by_target: dict[str, Rule] = field(default_factory=dict[str, Rule])
    clock_offset_ms: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """What an attempt used: tokens (LLM), characters (TTS), audio_ms (STT heard or TTS made)."""

    tokens: int = 0
    characters: int = 0
    audio_ms: int = 0


RulesListener = Callable[[Rules], None]
ProbeHandler = Callable[[Directive], Awaitable[ProbeResult]]


class Link(Protocol):
    """See the module's rule."""

    @property
    def rules(self) -> Rules: ...

    @property
    def worker(self) -> str: ...

    def hold(self, specs: list[TargetSpec]) -> None:
        """Say which targets this process holds (idempotent; adds)."""
        ...

    def started(self, target: str, deadline_ms: int) -> int:
        """An attempt begins; the number names it from here on. `deadline_ms`: its first-output deadline."""
        ...

    def first_output(self, attempt: int, waited_ms: int) -> None: ...

    def succeeded(self, attempt: int, use: Use = ...) -> None: ...

    def failed(
        self, attempt: int, kind: FaultKind, event: FaultEvent | None = None, retry_after_ms: int = 0
    ) -> None:
        """The attempt ended badly. The event goes to `faults` (already redacted by `worker.guard.redact`).

        The container sets the event's `at_ms` (Redis TIME), `worker` and `host`: what a job puts there is not
        used. retry_after_ms: what the provider asked for with a 429 (0: nothing).
        """
        ...

    def abandoned(self, attempt: int) -> None:
        """We gave it up (a verdict, a hedge lost, the caller hung up or spoke): counts against nobody."""
        ...

    def session(self, info: SessionInfo) -> None:
        """The session's newest record; `ended_at_ms` set means it is over. Call at every change; the link
        keeps the record alive by itself as long as this process lives.
        """
        ...

    def on_rules(self, listener: RulesListener) -> Callable[[], None]:
        """Be told (in this process's loop) when the rules change; returns the way to stop."""
        ...

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        """Offer to run probes for targets of this role; returns the way to stop."""
        ...
