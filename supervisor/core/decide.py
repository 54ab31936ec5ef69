"""What a guarded call does after a fault, as a value. Pure: the caller sleeps, sends and gives up.

Rules: a target that was not asked this turn comes first, at once. The same one is asked again only when
nothing untried is left, its fault allows it, its attempts and the container's budget allow it, and the pause
still fits into the turn's latency budget. Retries never happen in panic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.wire.vocabulary import KIND_RULES, FaultKind


@dataclass(frozen=True, slots=True)
class Option:
    """One admitted target, as it stands this turn.

    attempts: how often it was asked this turn. last: its newest fault this turn (None: it was given up by us
    before it answered, or not asked). again_at_once: its last fault was none of the service's (a stale pooled
    connection). retry_after_ms: what it asked for with its newest fault.
    """

    target: str
    attempts: int = 0
    last: FaultKind | None = None
    again_at_once: bool = False
    retry_after_ms: int = 0
    max_attempts: int = 2
    retry_allowed: bool = True
    panic: bool = False
    backoff_base_ms: int = 100
    backoff_cap_ms: int = 1000
    backoff_jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class Situation:
    """The turn right after a fault.

    route: admitted targets, best first. budget_left_ms: what is left of the turn's latency budget, maybe
    below 0. jitter: a number in 0..1 drawn by the caller. total_attempts / total_cap: the turn's own bound.
    """

    route: Sequence[Option]
    budget_left_ms: int
    jitter: float = 0.5
    total_attempts: int = 0
    total_cap: int = 8


@dataclass(frozen=True, slots=True)
class TryNext:
    """Ask this target now; it did not fail this turn."""

    target: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask this target again after `sleep_ms` (jittered already)."""

    target: str
    sleep_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left to try; `reason` is a short stable word."""

    reason: str


Decision = TryNext | Retry | GiveUp


def backoff_ms(option: Option, jitter: float) -> int:
    """The pause before the next attempt: base doubled per attempt made, capped, less its jitter."""
    doublings = min(max(option.attempts - 1, 0), 20)
    full = min(option.backoff_cap_ms, option.backoff_base_ms * 2**doublings)
    return int(full * (1.0 - option.backoff_jitter * min(max(jitter, 0.0), 1.0)))


def _again(option: Option) -> str:
    """Why the same target may not be asked again, or an empty string when it may."""
    if option.last is not None and not KIND_RULES[option.last].retry_same:
        return "not_retryable"
    if option.attempts >= max(option.max_attempts, 1):
        return "attempts"
    if option.panic or not option.retry_allowed:
        return "retry_budget"
    return ""


def decide(situation: Situation) -> Decision:
    """The next step of the turn. Never raises; ends for every situation because attempts only grow."""
    if situation.total_attempts >= situation.total_cap:
        return GiveUp("attempts")
    for option in situation.route:
        if option.again_at_once:
            return Retry(option.target, 0)
    for option in situation.route:
        if option.attempts == 0:
            return TryNext(option.target)
    for option in situation.route:
        # Given up on a verdict that no longer holds, or in panic: it never failed us, so before any retry.
        if option.last is None and option.attempts < max(option.max_attempts, 1):
            return TryNext(option.target)
    reason = "no_target"
    for option in situation.route:
        refused = _again(option)
        if not refused:
            pause = max(backoff_ms(option, situation.jitter), option.retry_after_ms)
            if pause <= situation.budget_left_ms:
                return Retry(option.target, pause)
            refused = "latency_budget"
        reason = refused
    return GiveUp(reason)
