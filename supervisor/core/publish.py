"""Verdicts become strategy: one snapshot a target, and only what changed is published.

Rules: a role is never left without a target that admits every session, unless the keys of all are condemned:
what is ramping is then let in whole, else all are, in order of evidence, without retries, and *panic* is said.
A target in a partial share keeps the user's place for the sessions inside it (see `admission`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.core import credentials, ramp
from supervisor.core.context import Context
from supervisor.core.overrides import override_of
from supervisor.core.state import EngineState, TargetRec
from supervisor.core.stats import quantile_ms, wilson_lower
from supervisor.core.transitions import CONDEMNED
from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import HISTOGRAM_BUCKETS, OverrideState, Role, State

_CLASS: Final = {
    State.HEALTHY: 0,
    State.DEGRADED: 1,
    State.RAMPING: 1,
    State.LIMITED: 2,
    State.PROBING: 3,
    State.UNHEALTHY: 3,
}
_LEARN_HALF_MS: Final = 300_000  # own quantiles cover the last five to ten minutes
_CHANGED: Final = 0.15  # smaller changes of a deadline are not worth a publication


class Place(msgspec.Struct):
    """What publishing works out for one target."""

    target: TargetRec
    admit: float
    panic: bool = False
    shut_key: bool = False
    override: OverrideState | None = None
    rank: int = 0
    new_calls_only: bool = False
    hold_until_at_ms: int = 0


def compose(ctx: Context, *, new_revision: bool = False) -> tuple[Snapshot, ...]:
    """The snapshots that differ from what was published last, with the next revision; that is then counted."""
    state = ctx.state
    revision = state.revision + 1
    changed: list[Snapshot] = []
    for place in places(state):
        target = place.target
        last = target.published
        old = ctx.now_ms - target.published_at_ms > (last.ttl_ms if last else 0) // 3
        revision_then = last.revision if last else 0
        snapshot = _snapshot(state, place, revision_then)
        if old or last is None or snapshot != last:
            snapshot = msgspec.structs.replace(snapshot, revision=revision)
            target.published = snapshot
            target.published_at_ms = ctx.now_ms
            changed.append(snapshot)
    if changed or new_revision:
        state.revision = revision
        credentials.watch(state)
    _tell_panic(ctx)
    return tuple(changed)


def stale(state: EngineState, now_ms: int) -> bool:
    """Whether some snapshot has used up a third of its time to live."""
    return any(
        t.published is not None and now_ms - t.published_at_ms > t.published.ttl_ms // 3
        for t in state.targets.values()
    )


def places(state: EngineState) -> list[Place]:
    """Admission and rank of every target now."""
    by_role: dict[Role, list[Place]] = {}
    for target in state.targets.values():
        by_role.setdefault(target.role, []).append(_place(state, target))
    for group in by_role.values():
        _admit(group, state.now_ms)
        group.sort(key=lambda p: _rank_key(state, p))
        for rank, place in enumerate(group):
            place.rank = rank
    return [place for group in by_role.values() for place in group]


def _place(state: EngineState, target: TargetRec) -> Place:
    verdict, policy = target.v, target.policy
    override = override_of(state, target)
    forced = override.state if override else None
    place = Place(target, 1.0, override=forced, shut_key=credentials.shut_by_key(state, target))
    if forced is OverrideState.FORCED_UNHEALTHY or (place.shut_key and forced is None):
        place.admit = 0.0
    elif forced is not None or verdict.state is State.HEALTHY:
        place.admit = 1.0
    elif verdict.state is State.DEGRADED:
        place.admit = policy.degraded_share
    elif verdict.state is State.RAMPING:
        place.admit = ramp.share(target)
        place.new_calls_only = policy.new_calls_only
    elif verdict.state is State.LIMITED:
        # What the ramp begins with: should no supervisor be there when the hold-off is over, some go in.
        place.admit = policy.ramp_1
        place.hold_until_at_ms = verdict.hold_until_at_ms
    else:
        place.admit = 0.0
    return place


def _admit(group: list[Place], now_ms: int) -> None:
    """See the module's rules."""
    if any(p.admit >= 1.0 and not p.hold_until_at_ms for p in group):
        return
    usable = [p for p in group if not p.shut_key or p.override is not None]
    willing = [p for p in usable if p.override is not OverrideState.FORCED_UNHEALTHY] or usable
    for state in (State.DEGRADED, State.RAMPING):
        open_now = [p for p in willing if p.override is None and p.target.v.state is state]
        if open_now:
            for place in open_now:
                place.admit, place.new_calls_only = 1.0, False
            return
    for place in willing:
        place.admit, place.panic, place.hold_until_at_ms = 1.0, True, 0


def _rank_key(state: EngineState, place: Place) -> tuple[int, float, int, str]:
    target = place.target
    if place.override is OverrideState.FORCED_UNHEALTHY or place.shut_key:
        klass = 4
    elif place.override is not None:
        klass = 0
    else:
        klass = _CLASS[target.v.state]
    evidence = 0.0
    if place.panic:
        counts = target.w60.sums(target.totals)
        evidence = wilson_lower(counts.faults, counts.finished)
    return klass, evidence, target.order, target.id


def _snapshot(state: EngineState, place: Place, revision: int) -> Snapshot:
    target = place.target
    verdict, policy = target.v, target.policy
    override = override_of(state, target)
    shut = place.admit == 0.0 or place.panic
    first_output = target.first_output_ms or policy.first_output_ms
    return Snapshot(
        target=target.id,
        revision=revision,
        epoch=state.epoch,
        state=verdict.state,
        admit=place.admit,
        rank=place.rank,
        max_attempts=1 if place.panic else policy.max_attempts,
        backoff_base_ms=policy.backoff_base_ms,
        backoff_cap_ms=policy.backoff_cap_ms,
        backoff_jitter=policy.backoff_jitter,
        first_output_ms=first_output,
        stall_ms=policy.stall_ms,
        overdue_ms=target.overdue_ms or round(policy.overdue_share * first_output),
        hedge_ms=(target.hedge_ms or policy.hedge_start_ms) if policy.hedge else 0,
        retry_ratio=0.0 if place.panic else policy.retry_ratio,
        retry_floor=0.0 if place.panic else policy.retry_floor_per_min / _crowd(len(state.workers)),
        hold_off_until_at_ms=place.hold_until_at_ms,
        reason=_reason(override.reason if override else "", verdict.reason, panic=place.panic),
        ttl_ms=policy.ttl_condemned_ms if shut else policy.ttl_ms,
        override=place.override,
        new_sessions_only=place.new_calls_only,
        condemned_keys=() if place.override else credentials.condemned_fps(state, target),
        panic=place.panic,
        since_at_ms=verdict.since_at_ms,
    )


def _reason(operator: str, verdict: str, *, panic: bool) -> str:
    text = f"operator: {operator}" if operator else verdict
    return (f"panic, nothing else is left: {text}" if panic else text)[:300]


def _crowd(workers: int) -> int:
    """Live workers, rounded up to a power of two: a share need not change with every one that comes."""
    return 1 << max(0, workers - 1).bit_length()


def _tell_panic(ctx: Context) -> None:
    state = ctx.state
    roles = {t.role for t in state.targets.values() if t.published is not None and t.published.panic}
    for role in sorted(roles - state.told_panic):
        ctx.emit(
            "alarm", reason=f"panic: no {role} target is left, all are tried", evidence={"role": role.value}
        )
    for role in sorted(state.told_panic - roles):
        ctx.emit("alarm", after="over", reason=f"{role} is no longer in panic", evidence={"role": role.value})
    state.told_panic = roles


def learn(ctx: Context, target: TargetRec) -> None:
    """Deadlines from the target's own first outputs, while it is well; called every few seconds."""
    for part in target.workers.values():
        if part.hist is not part.hist_done:
            if target.v.state not in CONDEMNED:
                _add(target.hist_new, part.hist, part.hist_done)
            part.hist_done = part.hist
    if ctx.now_ms - target.learnt_at_ms >= _LEARN_HALF_MS:
        target.learnt_at_ms = ctx.now_ms
        target.hist_old, target.hist_new = target.hist_new, [0] * HISTOGRAM_BUCKETS
    policy = target.policy
    both = [a + b for a, b in zip(target.hist_new, target.hist_old, strict=True)]
    if sum(both) < policy.learn_samples:
        return
    target.p50_ms, target.p95_ms = quantile_ms(both, 0.5), quantile_ms(both, 0.95)
    wanted = round(policy.first_output_p95_times * target.p95_ms)
    first_output = max(policy.first_output_min_ms, min(policy.first_output_ms, wanted))
    usual = max(target.p95_ms, round(policy.overdue_median_times * target.p50_ms))
    overdue = max(policy.overdue_min_ms, min(round(policy.overdue_share * first_output), usual))
    for name, value in (
        ("first_output_ms", first_output),
        ("overdue_ms", overdue),
        ("hedge_ms", target.p95_ms),
    ):
        old = getattr(target, name)
        if abs(value - old) > _CHANGED * old:
            setattr(target, name, value)
            ctx.publish = True


def _add(into: list[int], new: tuple[int, ...], done: tuple[int, ...]) -> None:
    for index, count in enumerate(new[:HISTOGRAM_BUCKETS]):
        before = done[index] if index < len(done) else 0
        if count > before:
            into[index] += count - before
