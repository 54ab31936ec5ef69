"""Condemning, degrading, clearing: evidence becomes a verdict, if the workers agree.

Rule: what one worker alone sees never condemns a target that others use happily; that worker is flagged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from supervisor.core import evidence as ev
from supervisor.core import suspicion
from supervisor.core.context import Context
from supervisor.core.evidence import Finding, Quorum
from supervisor.core.state import TargetRec, WorkerTarget
from supervisor.core.transitions import Trigger
from supervisor.wire.vocabulary import State

FLAG_MS: Final = 30_000  # how long a worker stays flagged without new reason
LONE_MS: Final = 10_000  # how long a run seen by few waits for a probe by another worker
REFUTED_MS: Final = 60_000  # and how long a good one holds against them
_JUDGED = frozenset({State.HEALTHY, State.DEGRADED, State.LIMITED})


def judge(ctx: Context, target: TargetRec) -> None:
    """Apply run, rate and suspicion to a target whose evidence grew (not the ramp's rules)."""
    if target.v.state not in _JUDGED or ctx.settling:
        return
    if target.run and ctx.now_ms - target.run_at_ms > target.policy.run_forget_ms:
        target.run = target.run_first = target.late_run = 0
    suspicion.consider(ctx, target)
    proved = suspicion.failed_workers(target)
    for finding, by_share, easily in _grounds(target, ctx.now_ms):
        quorum = ev.quorum(target, ctx.now_ms, failed_probes=proved, by_share=by_share, easily=easily)
        if quorum.met and not _unconfirmed(ctx, target, quorum):
            condemn(ctx, target, Trigger.CONDEMN, finding, quorum)
            return


def _grounds(target: TargetRec, now_ms: int) -> Iterator[tuple[Finding, bool, bool]]:
    """What may condemn, with how to tell a bad worker: by its share of faults; by one attempt alone."""
    finding = ev.run_rule(target, now_ms)
    if finding is not None:
        yield finding, False, False
    finding = ev.waited_rule(target, now_ms)
    if finding is not None:
        yield finding, False, True
    if suspicion.adds_up(target):
        yield suspicion.finding(target), False, True
    finding = ev.rate_rule(target)
    if finding is not None:
        yield finding, True, False


def degrade(ctx: Context, target: TargetRec) -> None:
    """Into and out of `degraded`; called every 500 ms."""
    verdict = target.v
    if verdict.state is State.HEALTHY and not ctx.settling:
        finding = ev.degraded_rule(ctx.state, target, ctx.now_ms)
        if finding is not None:
            ctx.move(target, Trigger.DEGRADE, finding.rule, finding.reason, finding.numbers)
    elif verdict.state is State.DEGRADED:
        if not ev.quiet(target):
            verdict.clear_since_at_ms = 0
        elif not verdict.clear_since_at_ms:
            verdict.clear_since_at_ms = ctx.now_ms
        elif ctx.now_ms - verdict.clear_since_at_ms >= target.policy.clear_ms:
            quiet_s = (ctx.now_ms - verdict.clear_since_at_ms) / 1000
            ctx.move(target, Trigger.CLEAR, "clear", f"few faults for {quiet_s:.0f} s", {"quiet_s": quiet_s})


def condemn(
    ctx: Context, target: TargetRec, trigger: Trigger, finding: Finding, quorum: Quorum | None
) -> None:
    """Shut the target. The first probe is set; an earlier re-admission is never set back to sooner."""
    verdict, policy = target.v, target.policy
    numbers = dict(finding.numbers)
    reason = finding.reason
    if quorum is not None:
        numbers["bad_workers"] = len(quorum.bad)
        numbers["active_workers"] = quorum.active
        reason = f"{reason}; {len(quorum.bad)} of {quorum.active} active workers agree"
    ctx.move(target, trigger, finding.rule, reason, numbers)
    verdict.condemned_at_ms = ctx.now_ms
    verdict.goods = 0
    verdict.by_key = finding.rule == "credentials"
    first = policy.probe_credentials_ms if verdict.by_key else policy.probe_first_ms
    verdict.next_probe_at_ms = ctx.now_ms + first
    target.suspicion = None


def flag(ctx: Context, target: TargetRec, parts: Sequence[WorkerTarget], finding: Finding) -> None:
    """Too few agree: the workers themselves are in doubt, and people are told."""
    for part in parts:
        if not part.flagged:
            part.flagged = finding.reason[:300]
            ctx.emit("worker", target, after="flagged", reason=part.flagged, worker=part.worker.id)
        part.flagged_at_ms = ctx.now_ms


def watch_workers(ctx: Context, target: TargetRec) -> None:
    """Flag a worker that mostly fails where the others do not; forget flags without new reason. Every 500 ms."""
    for part in target.workers.values():
        if part.flagged and ctx.now_ms - part.flagged_at_ms > FLAG_MS:
            part.flagged = ""
    if ctx.settling or not target.w10.sums(target.totals).faults:
        return
    for part, finding in ev.odd_ones(target, ctx.now_ms):
        flag(ctx, target, (part,), finding)


def _unconfirmed(ctx: Context, target: TargetRec, quorum: Quorum) -> bool:
    """A narrow quorum waits for a probe by another worker; where none can be had, it is taken after a while."""
    if not quorum.narrow:
        return False
    refuted = target.refuted_at_ms
    if refuted and ctx.now_ms < max(refuted + REFUTED_MS, target.suspect_next_ms + LONE_MS):
        return True
    return ctx.now_ms - target.run_from_ms < LONE_MS
