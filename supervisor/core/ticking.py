"""What time alone brings about: windows slide, workers fall silent, probes come due, ramps advance, things expire."""

from __future__ import annotations

from typing import Final

from supervisor.core import credentials, holdoff, overrides, probing, publish, ramp, suspicion, verdicts
from supervisor.core.context import Context
from supervisor.core.fold import forget_gauges, leave
from supervisor.core.state import GONE_MS, LIVE_MS, EngineState, TargetRec
from supervisor.core.transitions import CONDEMNED, Trigger
from supervisor.wire.vocabulary import State

_SLOT_MS: Final = 500
_LONG_MS: Final = 5_000
_LEARN_MS: Final = 5_000
_UNHELD_MS: Final = 600_000  # a target that no worker has held for so long is removed


def roll(state: EngineState, now_ms: int) -> None:
    """Slide every window to the present."""
    state.roll_due_ms = (now_ms // _SLOT_MS + 1) * _SLOT_MS
    long_slot = now_ms // _LONG_MS
    missed = min(12, long_slot - state.long_slot)
    state.long_slot = long_slot
    for target in state.targets.values():
        target.w10.roll(now_ms, target.totals)
        target.w60.roll(now_ms, target.totals)
        if missed > 0:
            for _ in range(missed):
                target.kinds.append({})
            for part in target.workers.values():
                part.ring.extend([(part.ok_sum, part.fault_sum)] * missed)


def tick(ctx: Context) -> None:
    """At least every 100 ms."""
    state, now = ctx.state, ctx.now_ms
    seldom = now >= state.expiry_due_ms
    if seldom:
        state.expiry_due_ms = now + _SLOT_MS
        overrides.expire(ctx)
        expire_workers(state, now)
        credentials.tick(ctx)
        ctx.removed = remove_unheld(ctx)
    if state.refresh:
        refresh(ctx)
    for target in state.targets.values():
        _advance(ctx, target)
        if seldom:
            verdicts.degrade(ctx, target)
            verdicts.watch_workers(ctx, target)
            _forgive(target, now)
    if now >= state.learn_due_ms:
        state.learn_due_ms = now + _LEARN_MS
        for target in state.targets.values():
            publish.learn(ctx, target)
    if seldom and publish.stale(state, now):
        ctx.publish = True


def readmit(ctx: Context, target: TargetRec) -> None:
    """Begin the ramp of a proven target."""
    if probing.proven(target, ctx.now_ms) and not credentials.shut_by_key(ctx.state, target):
        ramp.begin(ctx, target, Trigger.PROVEN, f"{target.v.goods} probes in a row came to a good end")


def refresh(ctx: Context) -> None:
    """Workers, targets, their order or their keys changed."""
    ctx.state.refresh = False
    for target in ctx.state.targets.values():
        if target.workers:
            target.order = min(part.order for part in target.workers.values())
    credentials.watch(ctx.state)
    if ctx.state.keys:
        credentials.settle_targets(ctx)
    ctx.publish = True


def expire_workers(state: EngineState, now_ms: int) -> None:
    """A silent worker's gauges are forgotten after 3 s, the worker after 15 s."""
    for worker in list(state.workers.values()):
        silent = now_ms - worker.last_at_ms
        if silent > GONE_MS:
            leave(state, worker)
        elif silent > LIVE_MS:
            for part in worker.targets.values():
                if part.in_flight or part.overdue:
                    forget_gauges(part)


def remove_unheld(ctx: Context) -> tuple[str, ...]:
    """Drop targets that no worker has held for ten minutes; returns their ids."""
    gone: list[TargetRec] = []
    for target in ctx.state.targets.values():
        if target.workers:
            target.held_at_ms = ctx.now_ms
        elif ctx.now_ms - target.held_at_ms > _UNHELD_MS:
            gone.append(target)
    for target in gone:
        if target.v.incident:
            ctx.emit("incident", target, after="closed", reason="no worker holds it any more")
        del ctx.state.targets[target.id]
        ctx.publish = True
    return tuple(target.id for target in gone)


def _advance(ctx: Context, target: TargetRec) -> None:
    purpose = probing.lost(ctx, target)
    if purpose == "suspicion":
        suspicion.on_nothing(ctx, target)
    state = target.v.state
    if state in CONDEMNED:
        readmit(ctx, target)
        if target.v.state in CONDEMNED:
            probing.due(ctx, target)
        return
    if target.suspicion is not None:
        suspicion.advance(ctx, target)
    if state is State.RAMPING:
        ramp.advance(ctx, target)
        ramp.judge(ctx, target)
        return
    if state is State.LIMITED:
        holdoff.over(ctx, target)
    if target.run or target.overdue_run:
        verdicts.judge(ctx, target)


def _forgive(target: TargetRec, now_ms: int) -> None:
    """One failed ramp, and one hold-off, is forgotten per half minute healthy."""
    verdict = target.v
    if verdict.state is not State.HEALTHY or now_ms - verdict.level_at_ms < target.policy.forget_ms:
        return
    if verdict.level > 1 or verdict.hold_level > 0:
        verdict.level = max(1, verdict.level - 1)
        verdict.hold_level = max(0, verdict.hold_level - 1)
        verdict.level_at_ms = now_ms
