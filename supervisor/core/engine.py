"""The engine: `step(state, input, now_ms) -> (state, effects)`. Pure, deterministic, never raises on a decoded input.

Rules: time is an argument and never goes back; the state is changed in place and returned; nothing is decided
before `TookOver`; every decision is an effect, in the order publish, probes, events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from supervisor.core import (
    credentials,
    holdoff,
    overrides,
    probing,
    publish,
    ramp,
    suspicion,
    ticking,
    verdicts,
)
from supervisor.core import inputs as inp
from supervisor.core.context import Context
from supervisor.core.effects import Effect, Emit, Publish
from supervisor.core.fold import Touched, fold, leave
from supervisor.core.persist import StateError, dump, load
from supervisor.core.policy import PolicyError
from supervisor.core.state import Check, EngineState, TargetRec, slow_bucket
from supervisor.core.transitions import CONDEMNED
from supervisor.core.view import view
from supervisor.wire.vocabulary import FaultKind, State

__all__ = ["EngineState", "StateError", "dump", "load", "new_state", "step", "view"]

SETTLE_MS: Final = 10_000  # after a gap in the reports
_MAX_CHECKS: Final = 8  # sources a provider, and eight times as many providers


def new_state(now_ms: int = 0) -> EngineState:
    """An empty state; it decides nothing until `TookOver` gives it an epoch."""
    return EngineState(now_ms)


def step(state: EngineState, input: inp.Input, now_ms: int) -> tuple[EngineState, list[Effect]]:  # noqa: A002  # the seam's name
    """Take one input at Redis time `now_ms` (earlier than the last: taken as the last). See the module's rules."""
    if now_ms > state.now_ms:
        state.now_ms = now_ms
        if now_ms >= state.roll_due_ms:
            ticking.roll(state, now_ms)
    else:
        now_ms = state.now_ms
    if type(input) is inp.Reported:
        touched = fold(state, input.report, input.late_ms, now_ms)
        if touched is None or not state.leading:
            return state, []
        ctx = Context(state, now_ms)
        _weigh(ctx, touched)
    else:
        ctx = Context(state, now_ms)
        _HANDLERS[type(input)](ctx, input)
    return state, _effects(ctx)


def _effects(ctx: Context) -> list[Effect]:
    state = ctx.state
    if not state.leading:
        return []
    effects: list[Effect] = []
    if ctx.publish:
        snapshots = publish.compose(ctx, new_revision=ctx.took_over or bool(ctx.removed))
        if snapshots or ctx.removed or ctx.took_over:
            effects.append(Publish(state.revision, snapshots, ctx.removed))
    effects += ctx.probes
    for event in ctx.events:
        effects.append(Emit(msgspec.structs.replace(event, revision=state.revision)))
    return effects


def _weigh(ctx: Context, touched: list[Touched]) -> None:
    """What a report brought up, target by target."""
    for what in touched:
        part = what.part
        target = part.target
        if what.first and target.watched:
            credentials.on_works(ctx, part)
            _alive_in_panic(ctx, target)
        if what.credentials:
            credentials.on_refusals(ctx, part, what.credentials)
        if what.limits:
            holdoff.on_limits(ctx, part)
        if target.v.state is State.RAMPING:
            ramp.judge(ctx, target)
        else:
            verdicts.judge(ctx, target)


def _alive_in_panic(ctx: Context, target: TargetRec) -> None:
    """A shut target that answers callers in panic is probed at once: it may be back."""
    if target.v.state in CONDEMNED and target.probe is None:
        soon = ctx.now_ms + target.policy.probe_again_ms
        target.v.next_probe_at_ms = min(target.v.next_probe_at_ms, soon)


def _left(ctx: Context, left: inp.WorkerLeft) -> None:
    worker = ctx.state.workers.get(left.worker)
    if worker is not None and left.boot in ("", worker.boot):
        leave(ctx.state, worker)


def _probe_ended(ctx: Context, ended: inp.ProbeEnded) -> None:
    result = ended.result
    target = ctx.state.targets.get(result.target)
    probe = target.probe if target is not None else None
    if target is None or probe is None or probe.id != result.directive or probe.worker != result.worker:
        ctx.state.count("probes_unknown")
        return
    target.probe = None
    how = probing.outcome(target, result, probe)
    ctx.state.count(f"probes_{how}")
    numbers: dict[str, float | int | str] = {
        "first_output_ms": result.first_output_ms, "total_ms": result.total_ms, "status": result.status,
        "purpose": probe.purpose,
    }  # fmt: skip
    reason = result.fault.value if result.fault else "came to a good end"
    ctx.emit("probe", target, after=how, reason=reason, worker=result.worker, evidence=numbers)
    part = target.workers.get(result.worker)
    if how in ("good", "refused"):
        credentials.on_probe(ctx, target, probe.fp, how)
    if how == "refused" and part is not None and result.fault is not None:
        credentials.on_refusals(ctx, part, {result.fault: 1})
    if how == "limited" and part is not None and result.fault is FaultKind.RATE_LIMIT:
        part.retry_after_ms = result.retry_after_ms
        holdoff.on_limits(ctx, part)
    if probe.purpose == "verdict":
        _verdict_probe(ctx, target, how, result.retry_after_ms, probe.sent_at_ms)
    elif probe.purpose == "suspicion":
        _suspicion_probe(ctx, target, how, result.worker)
    elif how == "good":
        suspicion.break_run(target)


def _verdict_probe(ctx: Context, target: TargetRec, how: str, retry_after_ms: int, sent_at_ms: int) -> None:
    if target.v.state not in CONDEMNED:
        return
    if how == "good":
        probing.good(ctx, target)
        ticking.readmit(ctx, target)
    elif how in ("fault", "refused"):
        probing.failed(ctx, target, sent_at_ms)
    else:
        probing.proved_nothing(ctx, target)
        if retry_after_ms:
            later = ctx.now_ms + min(retry_after_ms, target.policy.hold_max_ms)
            target.v.next_probe_at_ms = max(target.v.next_probe_at_ms, later)


def _suspicion_probe(ctx: Context, target: TargetRec, how: str, worker: str) -> None:
    if how == "good":
        bad = [
            p for p in target.workers.values() if p.run + p.overdue - p.own_base >= target.policy.suspect_run
        ]
        suspicion.on_good(ctx, target)
        if bad and len(bad) < len(target.workers):
            # Their own runs: the fleet's may be over already, for others are answered meanwhile.
            run = max(p.run + p.overdue - p.own_base for p in bad)
            words = f"{run} attempts in a row failed here, but a probe elsewhere went well"
            verdicts.flag(ctx, target, bad, verdicts.Finding("suspicion", words, {"run": run}))
    elif how in ("fault", "refused"):
        suspicion.on_fault(ctx, target, worker)
        if target.v.state is State.RAMPING:
            ramp.judge(ctx, target)
        else:
            verdicts.judge(ctx, target)
    else:
        suspicion.on_nothing(ctx, target)


def _check_ended(ctx: Context, check: inp.CheckEnded) -> None:
    sources = ctx.state.checks.get(check.provider)
    if sources is None:
        if len(ctx.state.checks) >= 8 * _MAX_CHECKS:
            ctx.state.count("checks_over")
            return
        sources = ctx.state.checks[check.provider] = {}
    if check.source not in sources and len(sources) >= _MAX_CHECKS:
        ctx.state.count("checks_over")
        return
    sources[check.source] = Check(check.ok, check.source, check.detail[:100], ctx.now_ms)


def _override_set(ctx: Context, given: inp.OverrideSet) -> None:
    overrides.put(ctx, given.record)


def _override_cleared(ctx: Context, given: inp.OverrideCleared) -> None:
    overrides.clear(ctx, given.scope, given.actor)


def _policy_set(ctx: Context, given: inp.PolicySet) -> None:
    state = ctx.state
    try:
        state.book.put(given.scope, given.values)
    except PolicyError as exc:
        state.count("policies_refused")
        ctx.emit("operator", reason=f"policy of {given.scope} refused: {exc}")
        return
    for target in state.targets.values():
        target.policy = state.book.of(target.id, target.role)
        target.slow_bucket = slow_bucket(target.policy)
        for part in target.workers.values():
            part.slow = sum(part.hist[target.slow_bucket :])
    ctx.publish = True
    ctx.emit("operator", reason=f"policy of {given.scope}: {len(given.values)} numbers set")


def _probe_asked(ctx: Context, asked: inp.ProbeAsked) -> None:
    target = ctx.state.targets.get(asked.target)
    if target is None or not ctx.state.leading:
        ctx.state.count("probes_refused")
        return
    capped = probing.over_cap(target, ctx.now_ms)
    part = None if target.probe or capped else probing.next_prober(ctx.state, target, ctx.now_ms)
    if part is None:
        why = "no worker that holds it can run one"
        if target.probe:
            why = "one is under way"
        elif capped:
            why = "those of this hour are spent"
        ctx.state.count("probes_refused")
        ctx.emit("operator", target, reason=f"no probe: {why}", evidence={"actor": asked.actor})
        return
    purpose = "verdict" if target.v.state in CONDEMNED else "operator"
    probing.send(ctx, target, part, purpose, target.policy.probe_budget_ms, f"asked for by {asked.actor}")
    ctx.emit(
        "operator", target, reason="probe asked for", worker=part.worker.id, evidence={"actor": asked.actor}
    )


def _gap(ctx: Context, gap: inp.GapSeen) -> None:
    ctx.state.settling_until_at_ms = max(ctx.state.settling_until_at_ms, ctx.now_ms + SETTLE_MS)
    ctx.state.count("gaps")
    for target in ctx.state.targets.values():
        suspicion.break_run(target)
        target.suspicion = None
    if ctx.state.leading:
        _tell_gap(ctx, gap.reason)
    else:
        ctx.state.untold_gaps.append(gap.reason)


def _tell_gap(ctx: Context, reason: str) -> None:
    ctx.emit("gap", reason=f"{reason}: condemning nobody new for {SETTLE_MS // 1000} s")


def _took_over(ctx: Context, took: inp.TookOver) -> None:
    state = ctx.state
    state.leading = True
    state.epoch = max(state.epoch, took.epoch)
    state.revision = max(state.revision, took.revision)
    for target in state.targets.values():
        target.probe = None  # whoever sent it is gone; its result would be of an older epoch
        target.published = None
    ctx.took_over = True
    ctx.emit("leader", after="leading", reason=f"epoch {state.epoch}, revisions above {state.revision}")
    for reason in state.untold_gaps:
        _tell_gap(ctx, reason)
    state.untold_gaps.clear()
    ticking.refresh(ctx)


def _tick(ctx: Context, _: inp.Tick) -> None:
    if ctx.state.leading:
        ticking.tick(ctx)
    else:
        ticking.expire_workers(ctx.state, ctx.now_ms)


_HANDLERS: Final[dict[type, Callable[[Context, Any], None]]] = {
    inp.WorkerLeft: _left,
    inp.ProbeEnded: _probe_ended,
    inp.CheckEnded: _check_ended,
    inp.OverrideSet: _override_set,
    inp.OverrideCleared: _override_cleared,
    inp.PolicySet: _policy_set,
    inp.ProbeAsked: _probe_asked,
    inp.GapSeen: _gap,
    inp.TookOver: _took_over,
    inp.Tick: _tick,
}
