"""Letting calls back in, step by step; and taking it back when the calls fail.

Rule: one fault never ends a ramp, and one worker's faults alone do not either; else a target that fails one
request in a hundred would stay shut for ever.
"""

from __future__ import annotations

from supervisor.core import evidence as ev
from supervisor.core import suspicion, verdicts
from supervisor.core.context import Context
from supervisor.core.state import TargetRec
from supervisor.core.transitions import Trigger
from supervisor.wire.vocabulary import State

_STEPS = 3


def share(target: TargetRec) -> float:
    """The share of sessions the present step admits."""
    policy = target.policy
    return (policy.ramp_1, policy.ramp_2, policy.ramp_3)[min(target.v.ramp_step, _STEPS - 1)]


def begin(ctx: Context, target: TargetRec, trigger: Trigger, reason: str) -> None:
    """Start from the first step with clean evidence."""
    ctx.move(target, trigger, "ramp", reason, {"share": target.policy.ramp_1})
    target.v.ramp_at_ms = ctx.now_ms
    target.v.ramp_step = 0
    target.clean = target.totals.now()
    target.ramp_faulty.clear()
    target.suspicion = None
    target.suspect_next_ms = ctx.now_ms
    suspicion.break_run(target)
    for part in target.workers.values():
        part.run = part.run_first = 0
        part.ring.extend([(part.ok_sum, part.fault_sum)] * 12)
        part.own_base = part.overdue


def judge(ctx: Context, target: TargetRec) -> None:
    """End the ramp when its rules say so, and enough workers do."""
    if target.v.state is not State.RAMPING or ctx.settling:
        return
    proved = suspicion.failed_workers(target)
    suspicion.consider(ctx, target)
    finding = ev.ramp_rule(target)
    if finding is None:
        return
    quorum = ev.quorum(target, ctx.now_ms, failed_probes=proved, ramp=True)
    widely = len(target.ramp_faulty) >= target.policy.ramp_workers
    if widely or (quorum.met and not quorum.narrow):
        target.v.level += 1
        verdicts.condemn(ctx, target, Trigger.RAMP_FAILED, finding, quorum)


def advance(ctx: Context, target: TargetRec) -> None:
    """The next step when this one has lasted; after the last the target is healthy."""
    verdict = target.v
    if verdict.state is not State.RAMPING or ctx.now_ms - verdict.ramp_at_ms < target.policy.ramp_step_ms:
        return
    if verdict.ramp_step < _STEPS - 1:
        verdict.ramp_step += 1
        verdict.ramp_at_ms = ctx.now_ms
        verdict.evidence = {**verdict.evidence, "share": share(target)}
        ctx.publish = True
        return
    counts = target.totals.since(target.clean)
    numbers: dict[str, float | int | str] = {"finished": counts.finished, "faults": counts.faults}
    reason = f"ramped up: {counts.ok} of {counts.finished} attempts went well"
    ctx.move(target, Trigger.RAMPED, "ramp", reason, numbers)
