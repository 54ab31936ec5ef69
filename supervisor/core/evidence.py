"""The rules that judge a target by its outcomes: run, rate, quorum, degraded, slow. Nothing here changes state.

Each returns a `Finding` (rule, words, numbers) or None. Words are for operators; numbers are what the rule saw.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, floor, log, log2
from typing import NamedTuple

from supervisor.core.state import EngineState, Evidence, TargetRec, WorkerTarget
from supervisor.core.stats import wilson_lower

_ODD_FAULTS = 3
_NOISE_FINISHED = 20
_USUALLY_OVERDUE = 0.05


class Finding(NamedTuple):
    """What a rule found."""

    rule: str
    reason: str
    numbers: Evidence


class Quorum(NamedTuple):
    """Who is bad on a target among the workers active on it.

    outside: live workers that have calls, could use it and do not, and have not confirmed by a probe.
    """

    bad: tuple[WorkerTarget, ...]
    active: int
    outside: int

    @property
    def met(self) -> bool:
        return self.active > 0 and 2 * len(self.bad) > self.active

    @property
    def few(self) -> bool:
        """At least as many are outside: what the active ones see may be why they moved here from elsewhere."""
        return 0 < self.outside >= self.active

    @property
    def narrow(self) -> bool:
        """With those outside the bad are no majority. One hedge makes a worker active that is well elsewhere."""
        return self.outside > 0 and 2 * len(self.bad) <= self.active + self.outside


def attempts_per_s(target: TargetRec, now_ms: int) -> float:
    """Attempts started a second, over the last 10 s, or since the target is known."""
    known_ms = min(10_000, max(1_000, now_ms - target.born_at_ms))
    return target.w10.sums(target.totals).started * 1_000.0 / known_ms


def active_parts(target: TargetRec, now_ms: int, window_ms: int) -> list[WorkerTarget]:
    """Live workers with an attempt on the target within the window."""
    since = now_ms - window_ms
    return [p for p in target.workers.values() if p.active_at_ms > since and p.worker.live(now_ms)]


def quorum(
    target: TargetRec,
    now_ms: int,
    *,
    failed_probes: Collection[str] = (),
    by_share: bool = False,
    ramp: bool = False,
    easily: bool = False,
) -> Quorum:
    """Which active workers are bad.

    Bad: the newest `bad_run` outcomes of the worker are faults or overdue (one is enough among many workers,
    once suspicion probes have failed, `easily`, and in a ramp, of which only what happened since its begin
    counts); or a probe that it ran failed; or, `by_share`, at least half of what it finished in 10 s was faults.
    """
    policy = target.policy
    window = min(policy.active_ms, now_ms - target.v.since_at_ms + 1) if ramp else policy.active_ms
    active = active_parts(target, now_ms, window)
    names = {part.worker.id for part in active}
    easily = easily or ramp or bool(failed_probes) or len(active) > policy.many_workers
    need = policy.bad_run_many if easily else policy.bad_run
    fresh = now_ms - policy.run_forget_ms
    bad: list[WorkerTarget] = []
    for part in active:
        run = part.run if part.run_at_ms > fresh else 0
        if run + part.overdue - part.own_base >= need or part.worker.id in failed_probes:
            bad.append(part)
        elif by_share:
            ok, faults = part.recent(2)
            if faults and faults >= ok:
                bad.append(part)
    for worker in failed_probes:
        part = target.workers.get(worker)
        if part is not None and worker not in names:
            bad.append(part)
            names.add(worker)
    outside = sum(
        1
        for p in target.workers.values()
        if p.worker.id not in names and p.worker.sessions and not p.worker.draining and p.worker.live(now_ms)
    )
    return Quorum(tuple(bad), len(names), outside)


def noise(target: TargetRec) -> float:
    """The share that failed in the last 60 s before the present run; 0.0 when too little is known."""
    long = target.w60.sums(target.totals, target.clean)
    before, faults = long.finished - target.run, long.faults - target.run
    return min(0.9, faults / before) if before >= _NOISE_FINISHED and faults > 1 else 0.0


def run_needed(target: TargetRec, now_ms: int) -> int:
    """N: faults in a row that condemn at the present traffic; more where noise alone would make such a run."""
    policy = target.policy
    needed = policy.run_base + floor(policy.run_per_doubling * log2(max(1.0, attempts_per_s(target, now_ms))))
    usual = noise(target)
    if usual > 0.0:
        needed = max(needed, min(policy.run_max, ceil(log(policy.run_chance) / log(usual))))
    return needed


def run_rule(target: TargetRec, now_ms: int) -> Finding | None:
    """Faults and overdue attempts in a row, over the fleet, no completion between."""
    run, needed = target.fleet_run, run_needed(target, now_ms)
    if run < needed:
        return None
    numbers = _numbers_of_a_run(target, run, needed, now_ms)
    waiting = f", {target.overdue_run} of them still waiting" if target.overdue_run else ""
    return Finding(
        "run", f"{run} attempts in a row failed{waiting}, none completed between (limit {needed})", numbers
    )


def _numbers_of_a_run(target: TargetRec, run: int, needed: int, now_ms: int) -> Evidence:
    rate = round(attempts_per_s(target, now_ms), 2)
    return {"run": run, "needed": needed, "overdue": target.overdue_run, "attempts_per_s": rate}


def waited_needed(target: TargetRec, now_ms: int) -> int:
    """Attempts in a row that must have waited in vain. One in twenty is overdue anyway: it is over the p95."""
    policy = target.policy
    chance = policy.waited_chance / max(1.0, attempts_per_s(target, now_ms))
    usual = min(0.9, _USUALLY_OVERDUE + noise(target))
    return max(policy.run_base, min(policy.run_max, ceil(log(chance) / log(usual))))


def waited_rule(target: TargetRec, now_ms: int) -> Finding | None:
    """A hang: attempts that waited in vain, and meanwhile not one first output anywhere.

    Unlike faults these end at every first output, so a busy fleet does not meet with long runs of them by chance
    more often than a quiet one, and one such attempt a worker is enough for it to be bad.
    """
    waited, needed = target.waited_run, waited_needed(target, now_ms)
    if waited < needed:
        return None
    numbers = _numbers_of_a_run(target, waited, needed, now_ms)
    words = f"{waited} attempts in a row waited too long, no first output anywhere between (limit {needed})"
    return Finding("run", words, numbers)


def rate_rule(target: TargetRec) -> Finding | None:
    """Most of what finished in the last 10 s failed, beyond chance. What is under way and not late may yet end well:

    errors come sooner than answers end, so that the first that finish in a fleet just started are mostly errors.
    """
    policy = target.policy
    counts = target.w10.sums(target.totals, target.clean)
    if counts.finished < policy.rate_finished:
        return None
    under_way = max(0, target.in_flight - target.overdue)
    bound = wilson_lower(counts.faults, counts.finished + under_way, policy.z)
    if bound < policy.rate_bound:
        return None
    numbers: Evidence = {"faults": counts.faults, "finished": counts.finished, "bound": round(bound, 3)}
    reason = f"{counts.faults} of {counts.finished} failed in 10 s: surely at least {bound:.0%} do"
    return Finding("rate", reason, numbers)


def degraded_rule(state: EngineState, target: TargetRec, now_ms: int) -> Finding | None:
    """Too many faults or slow first outputs for a first choice, too few to shut it."""
    policy = target.policy
    counts = target.w10.sums(target.totals, target.clean)
    if counts.faults and counts.finished >= policy.degraded_finished:
        bound = wilson_lower(counts.faults, counts.finished, policy.z)
        if bound >= policy.degraded_bound and _widespread(target, now_ms, 2, policy.degraded_bound / 2):
            return _often("10 s", counts.faults, counts.finished, bound)
    long = target.w60.sums(target.totals, target.clean)
    if long.faults and long.finished >= policy.degraded_long_finished:
        many = state.sessions > policy.many_sessions
        limit = policy.degraded_long_bound_many if many else policy.degraded_long_bound
        bound = wilson_lower(long.faults, long.finished, policy.degraded_long_z)
        if bound >= limit and _widespread(target, now_ms, 12, limit / 2):
            return _often("60 s", long.faults, long.finished, bound)
    return slow_rule(target)


def slow_rule(target: TargetRec) -> Finding | None:
    """Most of the last ten first outputs, all within 60 s, were over the budget."""
    policy = target.policy
    slow = target.slow_bits.bit_count()
    if slow < policy.slow_of_ten:
        return None
    long = target.w60.sums(target.totals, target.clean)
    if long.first < 10 or not long.slow:
        return None
    reason = f"{slow} of the last 10 first outputs took longer than {policy.slow_ms} ms"
    return Finding("slow", reason, {"slow": slow, "of": 10, "budget_ms": policy.slow_ms})


def quiet(target: TargetRec) -> bool:
    """Whether a degraded target looks well now; it must for a while to be cleared."""
    policy = target.policy
    counts, long = target.w10.sums(target.totals, target.clean), target.w60.sums(target.totals, target.clean)
    return (
        wilson_lower(counts.faults, counts.finished, policy.z) < policy.clear_bound
        and wilson_lower(long.faults, long.finished, policy.degraded_long_z) < policy.clear_long_bound
        and slow_rule(target) is None
    )


def ramp_rule(target: TargetRec) -> Finding | None:
    """Whether a ramp goes wrong; one fault alone never ends it."""
    policy = target.policy
    counts = target.totals.since(target.clean)
    run = target.fleet_run
    if run >= policy.ramp_run:
        return Finding("ramp", f"{run} attempts in a row failed while ramping", {"run": run})
    if counts.faults < policy.ramp_faults:
        return None
    bound = wilson_lower(counts.faults, counts.finished, policy.z)
    if bound < policy.ramp_bound:
        return None
    numbers: Evidence = {"faults": counts.faults, "finished": counts.finished, "bound": round(bound, 3)}
    return Finding("ramp", f"{counts.faults} of {counts.finished} failed while ramping", numbers)


def odd_ones(target: TargetRec, now_ms: int) -> list[tuple[WorkerTarget, Finding]]:
    """Workers that fail at least half of the time (3 faults or more in 10 s) while the rest fails rarely."""
    parts = active_parts(target, now_ms, target.policy.active_ms)
    seen = [(part, *part.recent(2)) for part in parts]
    all_ok, all_faults = sum(ok for _, ok, _ in seen), sum(faults for _, _, faults in seen)
    odd: list[tuple[WorkerTarget, Finding]] = []
    for part, ok, faults in seen:
        rest_ok, rest_faults = all_ok - ok, all_faults - faults
        if faults >= _ODD_FAULTS and faults >= ok and rest_ok >= 10 * rest_faults and rest_ok:
            words = f"{faults} of its last {ok + faults} attempts failed, but {rest_faults} of {rest_ok + rest_faults}"
            numbers: Evidence = {"faults": faults, "finished": ok + faults, "others_ok": rest_ok}
            odd.append((part, Finding("worker", f"{words} elsewhere", numbers)))
    return odd


def _often(window: str, faults: int, finished: int, bound: float) -> Finding:
    numbers: Evidence = {"faults": faults, "finished": finished, "bound": round(bound, 3), "window": window}
    return Finding(
        "degraded", f"{faults} of {finished} failed in {window}: surely at least {bound:.0%} do", numbers
    )


def _widespread(target: TargetRec, now_ms: int, slots: int, share: float) -> bool:
    """More than half of the workers that finished something see at least `share` of it fail.

    Without it one broken worker of four, a quarter of all outcomes, would degrade what works for the others.
    """
    saw = having = 0
    for part in active_parts(target, now_ms, max(target.policy.active_ms, slots * 5_000)):
        ok, faults = part.recent(slots)
        if ok + faults:
            having += 1
            saw += faults >= share * (ok + faults) and faults > 0
    return 2 * saw > having and not quorum(target, now_ms).few
