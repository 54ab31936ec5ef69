"""429: the whole fleet holds off for as long as the provider asks, then ramps up; no probe is spent on it.

Rules: a running hold-off is only ever made longer; one worker alone cannot ask for more than a minute; and a
worker that alone hears 429 time and again, while others are served, is the limited one, not the provider.
"""

from __future__ import annotations

from typing import Final

from supervisor.core import ramp, verdicts
from supervisor.core.context import Context
from supervisor.core.evidence import Finding, active_parts
from supervisor.core.state import TargetRec, WorkerTarget
from supervisor.core.transitions import Trigger
from supervisor.wire.vocabulary import State

AGREE_MS: Final = 10_000  # two workers hearing 429 within so long agree
LONE_HOLDS: Final = 2  # hold-offs that one worker alone may cause before it is flagged instead
_MAX_LEVEL: Final = 6
_LIMITABLE = frozenset({State.HEALTHY, State.DEGRADED, State.RAMPING})


def on_limits(ctx: Context, part: WorkerTarget) -> None:
    """A worker heard 429."""
    target, now = part.target, ctx.now_ms
    verdict, policy = target.v, target.policy
    part.limited_at_ms = now
    others = [p for p in target.workers.values() if p is not part and p.limited_at_ms > now - AGREE_MS]
    limited = verdict.state is State.LIMITED
    if others:
        part.hold_count = 0
        for other in others:
            other.hold_count = 0
    elif not limited and part.hold_count >= LONE_HOLDS and _others_served(target, part, now):
        text = f"{part.hold_count} times it alone was refused for its rate"
        verdicts.flag(ctx, target, (part,), Finding("rate_limit", text, {"times": part.hold_count}))
        return
    hold = _hold_ms(target, part, agreed=any(o.retry_after_ms > policy.hold_max_ms for o in others))
    until = now + hold
    if verdict.state in _LIMITABLE:
        if not others:
            part.hold_count += 1
        verdict.hold_until_at_ms = max(verdict.hold_until_at_ms, until)
        reason = f"rate limited: nothing is sent for {hold / 1000:.0f} s"
        numbers: dict[str, float | int | str] = {
            "hold_s": hold / 1000, "retry_after_s": part.retry_after_ms / 1000, "workers": 1 + len(others)
        }  # fmt: skip
        if not part.retry_after_ms:
            verdict.hold_level = min(_MAX_LEVEL, verdict.hold_level + 1)
        ctx.move(target, Trigger.LIMIT, "rate_limit", reason, numbers)
    elif limited and part.retry_after_ms and until > verdict.hold_until_at_ms:
        # An answer to what was under way. Without a Retry-After it says nothing that is not known.
        verdict.hold_until_at_ms = until
        ctx.publish = True


def over(ctx: Context, target: TargetRec) -> None:
    """Ramp up when the hold-off is over."""
    verdict = target.v
    if verdict.state is State.LIMITED and ctx.now_ms >= verdict.hold_until_at_ms:
        ramp.begin(ctx, target, Trigger.HOLD_OVER, "the hold-off is over")


def _hold_ms(target: TargetRec, part: WorkerTarget, *, agreed: bool) -> int:
    policy = target.policy
    asked = part.retry_after_ms
    if asked:
        most = policy.hold_agreed_ms if agreed else policy.hold_max_ms
        return max(policy.hold_min_ms, min(asked, most))
    return min(policy.hold_cap_ms, policy.hold_base_ms * 2**target.v.hold_level)


def _others_served(target: TargetRec, part: WorkerTarget, now_ms: int) -> bool:
    parts = active_parts(target, now_ms, target.policy.active_ms)
    return any(p is not part and p.recent(2)[0] > 0 for p in parts)
