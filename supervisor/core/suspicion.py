"""A short run in a quiet fleet is looked into by probes, instead of waiting for callers to pay for the rest.

Rules: probes follow one another, on different workers where there are some, least suspect first; all must fail;
one good probe ends the suspicion and breaks the run. A probe that proves nothing counts for nothing. The run and
the probes that failed must add up: a shorter run takes more probes, a longer one that most workers see fewer.
"""

from __future__ import annotations

from supervisor.core import probing
from supervisor.core.context import Context
from supervisor.core.evidence import Finding, attempts_per_s, noise, quorum, waited_needed
from supervisor.core.state import Suspicion, TargetRec
from supervisor.wire.vocabulary import State

MAX_TRIES = 6  # probes that proved nothing before a suspicion is dropped
_REFUTED_CAP = 5  # the pause doubles at most so often: 10 s to 5 min
_SHARE_OF_CAP = 0.5  # the rest of the hour's probes is for finding the way back
_SHARE_OF_ONE = 0.25  # and looking into single failures leaves as much for runs
_HINT_MS = 60_000  # how long a failed check counts as a hint
_SUSPECTED = frozenset({State.HEALTHY, State.DEGRADED, State.LIMITED, State.RAMPING})


def consider(ctx: Context, target: TargetRec) -> None:
    """Start a suspicion when the run calls for one."""
    policy, now = target.policy, ctx.now_ms
    if target.suspicion is not None or now < target.suspect_next_ms or target.v.state not in _SUSPECTED:
        return
    usual = attempts_per_s(target, now)
    run = 1 if _hinted(ctx, target) or _alone(ctx, target, usual) else policy.suspect_run
    if target.fleet_run < run or target.fleet_run < run + _noisy(target):
        return
    # Local breakers may have stopped the traffic: what comes now counts, not what came before.
    newest = target.w10.last(4, target.totals).started / 2.0
    quiet = usual < policy.suspect_rate or newest < min(policy.suspect_rate, usual / 2)
    if not quiet or _known_sooner(target, now, min(usual, newest)):
        seen = quorum(target, now)
        if not seen.few and not (seen.met and seen.narrow):
            return
    start(ctx, target)


def start(ctx: Context, target: TargetRec, fp: str | None = None, refused: str = "") -> None:
    """Begin now, at most every 10 s; the first probe goes out with this step.

    With a refused key in doubt, others that hold it are asked.
    """
    if target.suspicion is None and ctx.now_ms >= target.suspect_next_ms:
        target.suspicion = Suspicion(ctx.now_ms, fp, refused)
        target.suspect_next_ms = ctx.now_ms + target.policy.suspect_every_ms
        advance(ctx, target)


def advance(ctx: Context, target: TargetRec) -> None:
    """Send the next probe when its time has come; give up what leads nowhere."""
    doubt = target.suspicion
    if doubt is None or target.probe is not None:
        return
    policy = target.policy
    enough = len(doubt.failed) >= needed(target)
    if doubt.tries >= MAX_TRIES or ctx.now_ms - doubt.started_at_ms > 3 * policy.suspect_every_ms:
        target.suspicion = None
    elif enough:
        if ctx.now_ms >= target.suspect_next_ms and ctx.now_ms >= doubt.next_at_ms + policy.suspect_every_ms:
            target.suspicion = None  # it failed to convince: look again
    elif ctx.now_ms >= doubt.next_at_ms:
        part = probing.least_suspect(target, ctx.now_ms, doubt)
        if part is None or probing.over_cap(target, ctx.now_ms, _SHARE_OF_CAP):
            target.suspicion = None
            return
        doubt.tries += 1
        budget = _budget_ms(target)
        run = f"{target.fleet_run} attempts in a row failed"
        reason = run if doubt.fp is None else f"the key {doubt.fp or '(unknown)'} was refused"
        probing.send(ctx, target, part, "suspicion", budget, reason)


def needed(target: TargetRec) -> int:
    """Probes that must all fail. Where a request in thirty fails anyway two say little."""
    doubt = target.suspicion
    if doubt is not None and doubt.fp is not None:
        return _probes(target)  # a key is in doubt, not a run
    return max(_probes(target), _sum(target) - max(1, target.fleet_run))


def failed_workers(target: TargetRec) -> tuple[str, ...]:
    """Who ran the failed probes, once enough of them have failed; else nobody."""
    doubt = target.suspicion
    if doubt is None or len(doubt.failed) < needed(target):
        return ()
    return tuple(doubt.failed)


def adds_up(target: TargetRec) -> bool:
    """Whether the run and the probes that failed after it are enough, if most workers have a part in the run."""
    doubt = target.suspicion
    if doubt is None or not doubt.failed or not target.fleet_run:
        return False
    if _noisy(target) and len(doubt.failed) < _probes(target):
        return False  # runs come by themselves there, and one probe in so many fails by itself
    return target.fleet_run + len(doubt.failed) >= _sum(target)


def finding(target: TargetRec) -> Finding:
    """What the failed probes say."""
    run, failed = target.fleet_run, target.suspicion.failed if target.suspicion else ()
    numbers: dict[str, float | int | str] = {"run": run, "probes_failed": len(failed)}
    return Finding(
        "suspicion", f"{run} attempts in a row failed, and {len(failed)} probes in a row too", numbers
    )


def on_fault(ctx: Context, target: TargetRec, worker: str) -> None:
    """A suspicion probe failed."""
    if target.suspicion is not None:
        target.suspicion.failed.append(worker)
        target.suspicion.next_at_ms = ctx.now_ms
        advance(ctx, target)


def on_nothing(ctx: Context, target: TargetRec) -> None:
    """A suspicion probe was lost or proved nothing: another worker next."""
    if target.suspicion is not None:
        target.suspicion.next_at_ms = ctx.now_ms + 200


def on_good(ctx: Context, target: TargetRec) -> None:
    """A suspicion probe came to a good end: the target works, whoever fails must look at himself."""
    policy = target.policy
    strong = target.fleet_run >= policy.run_base
    target.suspicion = None
    target.refuted_at_ms = ctx.now_ms
    # Refuted again and again while one worker goes on failing: ask less often, at most every five minutes.
    target.refuted = min(_REFUTED_CAP, target.refuted + 1) if strong else 0
    target.suspect_next_ms = ctx.now_ms + policy.suspect_every_ms * 2**target.refuted
    break_run(target)


def break_run(target: TargetRec) -> None:
    """Something completed outside the reports: no run goes on over it."""
    target.run = target.run_first = target.late_run = 0
    target.first_seq += 1
    target.overdue_run = 0


def _noisy(target: TargetRec) -> bool:
    return noise(target) >= target.policy.suspect_noise


def _probes(target: TargetRec) -> int:
    return target.policy.suspect_probes * (2 if _noisy(target) else 1)


def _sum(target: TargetRec) -> int:
    return target.policy.suspect_run + _noisy(target) + _probes(target)


def _budget_ms(target: TargetRec) -> int:
    """A healthy target answers a minimal request in about the time of its first output."""
    policy, overdue_ms = target.policy, _overdue_ms(target)
    return min(policy.probe_budget_ms, max(policy.suspect_budget_ms, overdue_ms + overdue_ms // 2))


def _overdue_ms(target: TargetRec) -> int:
    return target.overdue_ms or round(target.policy.overdue_share * target.policy.first_output_ms)


def _alone(ctx: Context, target: TargetRec, usual: float) -> bool:
    """Whether a run of one is enough: in a tiny fleet, when it failed or waits for half as long again."""
    if usual >= target.policy.suspect_one_rate or probing.over_cap(target, ctx.now_ms, _SHARE_OF_ONE):
        return False
    return target.run > 0 or ctx.now_ms - target.overdue_from_ms >= _overdue_ms(target) // 2


def _known_sooner(target: TargetRec, now_ms: int, rate: float) -> bool:
    """Nothing but waiting, and the callers' own attempts will have told of a hang before a probe does."""
    waited = target.waited_run
    if waited < target.fleet_run:
        return False
    return (waited_needed(target, now_ms) - waited) * 1_000 < rate * _budget_ms(target)


def _hinted(ctx: Context, target: TargetRec) -> bool:
    checks = ctx.state.checks.get(target.provider)
    return bool(checks) and any(not c.ok and ctx.now_ms - c.at_ms < _HINT_MS for c in checks.values())
