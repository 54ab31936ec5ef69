"""Probes: who runs one, when the next is due, what its end means.

Rules: at most one probe of a target is in flight in the whole fleet; a probe that does not come back returns
its permit a second after its deadline and counts as nothing; only probes lead out of `unhealthy`.
"""

from __future__ import annotations

from typing import Final

from supervisor.core.context import Context
from supervisor.core.effects import SendProbe
from supervisor.core.state import EngineState, Probe, Suspicion, TargetRec, WorkerTarget
from supervisor.core.stats import jittered
from supervisor.core.transitions import Trigger
from supervisor.wire.messages import ProbeResult
from supervisor.wire.vocabulary import CREDENTIAL_KINDS, HEALTH_KINDS, LIMIT_KINDS, State

LOST_MS: Final = 1_000  # after the deadline
_GRACE_MS: Final = 1_000  # from the budget to the deadline: the directive's way, and the result's
_CAPPED_MS: Final = 120_000
_HOUR_MS: Final = 3_600_000


def send(
    ctx: Context, target: TargetRec, part: WorkerTarget, purpose: str, budget_ms: int, reason: str
) -> None:
    """Send a probe to one worker. The target must have none in flight."""
    verdict, now = target.v, ctx.now_ms
    ctx.state.last_probe_n += 1
    verdict.probes_sent += 1
    deadline = now + budget_ms + _GRACE_MS
    name = f"p{ctx.state.epoch}-{ctx.state.last_probe_n}"
    target.probe = Probe(name, part.worker.id, part.fp, purpose, now, budget_ms, deadline)
    target.last_prober = part.worker.id
    target.probe_log.append(now)
    ctx.probes.append(SendProbe(name, part.worker.id, target.id, budget_ms, deadline, reason[:300]))
    ctx.state.count("probes_sent")
    if verdict.state is State.UNHEALTHY and purpose == "verdict":
        ctx.move(target, Trigger.PROBE_SENT, "", "", {})


def over_cap(target: TargetRec, now_ms: int, share: float = 1.0) -> bool:
    """Whether the spend cap of this hour, or a share of it, is reached."""
    log = target.probe_log
    while log and log[0] <= now_ms - _HOUR_MS:
        log.popleft()
    return len(log) >= share * target.policy.probe_cap_per_hour


def least_suspect(target: TargetRec, now_ms: int, doubt: Suspicion) -> WorkerTarget | None:
    """The worker whose word adds most: one that has not seen the trouble itself, nor probed already."""
    failed, fp, refused = doubt.failed, doubt.fp, doubt.refused
    n = target.v.probes_sent
    parts = _able(target, now_ms)
    order = {part.worker.id: (i - n) % len(parts) for i, part in enumerate(parts)}
    return min(
        parts,
        key=lambda p: (
            fp is not None and p.fp != fp,
            p.worker.id == refused,
            p.worker.id in failed,
            not p.worker.sessions,
            p.run + p.overdue,
            order[p.worker.id],
        ),
        default=None,
    )


def next_prober(state: EngineState, target: TargetRec, now_ms: int) -> WorkerTarget | None:
    """Workers take turns; after a good probe its worker confirms; condemned keys come last."""
    parts = _able(target, now_ms)
    if not parts:
        return None
    names = [part.worker.id for part in parts]
    if target.v.goods and target.last_prober in names:
        return parts[names.index(target.last_prober)]
    after = next((i for i, name in enumerate(names) if name > target.last_prober), 0)
    turn = {name: (i - after) % len(names) for i, name in enumerate(names)}
    return min(
        parts,
        key=lambda p: (key_condemned(state, target, p.fp), not p.worker.sessions, turn[p.worker.id]),
    )


def key_condemned(state: EngineState, target: TargetRec, fp: str) -> bool:
    """Whether the holder of this key must not use the target."""
    for scope in (target.provider, target.id):
        record = state.keys.get((scope, fp))
        if record is not None and record.condemned_at_ms:
            return True
    return False


def _able(target: TargetRec, now_ms: int) -> list[WorkerTarget]:
    parts = [p for p in target.workers.values() if p.worker.live(now_ms) and not p.worker.draining]
    parts.sort(key=lambda p: p.worker.id)
    return parts


def every_ms(target: TargetRec, now_ms: int) -> int:
    """The pause between probes of a condemned target, jittered by hash."""
    verdict, policy = target.v, target.policy
    if over_cap(target, now_ms):
        base = _CAPPED_MS
    elif now_ms - (verdict.incident_at_ms or now_ms) > policy.probe_late_after_ms:
        base = policy.probe_late_ms
    elif verdict.by_key:
        return policy.probe_credentials_ms  # slow enough: jitter would only delay the way back
    else:
        base = policy.probe_every_ms
    return jittered(base, policy.probe_jitter, target.id, verdict.probes_sent)


def due(ctx: Context, target: TargetRec) -> None:
    """Send the next verdict probe when it is due and somebody can run it."""
    verdict, now = target.v, ctx.now_ms
    if target.probe is not None or now < verdict.next_probe_at_ms:
        return
    part = next_prober(ctx.state, target, now)
    if part is not None:
        send(ctx, target, part, "verdict", target.policy.probe_budget_ms, verdict.reason)


def lost(ctx: Context, target: TargetRec) -> str:
    """Give the permit of an overdue probe back. Returns its purpose, "" when none is lost."""
    probe = target.probe
    if probe is None or ctx.now_ms <= probe.deadline_at_ms + LOST_MS:
        return ""
    target.probe = None
    ctx.state.count("probes_lost")
    ctx.emit("probe", target, after="lost", reason="no result came back", worker=probe.worker)
    proved_nothing(ctx, target)
    return probe.purpose


def proved_nothing(ctx: Context, target: TargetRec) -> None:
    """As if the probe had not been: another worker next."""
    verdict = target.v
    if verdict.state is State.PROBING:
        ctx.move(target, Trigger.PROBE_FAILED, "", "", {})
        verdict.next_probe_at_ms = ctx.now_ms + target.policy.probe_pause_ms


def outcome(target: TargetRec, result: ProbeResult, probe: Probe) -> str:
    """`good`, `fault`, `limited`, `refused` (credentials) or `nothing`."""
    kind = result.fault
    if kind is None:
        # Later than callers would wait is no answer, however well it ended.
        deadline = min(probe.budget_ms, target.first_output_ms or target.policy.first_output_ms)
        return "good" if result.first_output_ms <= deadline else "fault"
    if kind in HEALTH_KINDS:
        return "fault"
    if kind in LIMIT_KINDS:
        return "limited"
    return "refused" if kind in CREDENTIAL_KINDS else "nothing"


def failed(ctx: Context, target: TargetRec, sent_at_ms: int) -> None:
    """A verdict probe failed: what was good before is void."""
    verdict = target.v
    verdict.goods = 0
    if verdict.state is State.PROBING:
        ctx.move(target, Trigger.PROBE_FAILED, "", "", {})
    again = max(sent_at_ms + every_ms(target, ctx.now_ms), ctx.now_ms + target.policy.probe_pause_ms)
    verdict.next_probe_at_ms = max(verdict.next_probe_at_ms, again)


def good(ctx: Context, target: TargetRec) -> None:
    """A verdict probe came to a good end: confirm it soon; then wait for re-admission, still probing."""
    verdict, policy = target.v, target.policy
    verdict.goods += 1
    pause = policy.probe_again_ms if verdict.goods < policy.probe_goods else every_ms(target, ctx.now_ms)
    verdict.next_probe_at_ms = ctx.now_ms + pause


def readmit_at_ms(target: TargetRec) -> int:
    """Earliest re-admission after the verdict: doubles with each failed ramp."""
    policy = target.policy
    wait = min(policy.readmit_cap_ms, policy.readmit_ms * 2 ** min(20, target.v.level - 1))
    return target.v.condemned_at_ms + wait


def proven(target: TargetRec, now_ms: int) -> bool:
    """Whether a probed target may be let in again."""
    verdict = target.v
    return (
        verdict.state is State.PROBING
        and verdict.goods >= target.policy.probe_goods
        and now_ms >= readmit_at_ms(target)
    )
