"""A report becomes evidence: cumulative counters of one worker's boot are turned into what is new.

Rules: a report is counted once (seq rises per boot; what is not newer is dropped and counted), an old boot
never comes back, a counter that goes backwards within a boot makes its target's entry void, what was taken
more than 2 s ago or spans a silence goes to history only, and gauges belong to the newest report.

This is the engine's hot path: no allocation while nothing is wrong.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from supervisor.core.state import LATE_MS, LIVE_MS, EngineState, TargetRec, WorkerRec, WorkerTarget
from supervisor.wire.messages import MAX_TARGETS_PER_FLEET, Report, TargetCounts
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import CREDENTIAL_KINDS, HEALTH_KINDS, FaultKind

# A boot whose first seen report is this young counts from zero; an older one is only a baseline to count from.
FRESH_SEQ: Final = 20
_HEALTH: Final = HEALTH_KINDS
_CREDENTIAL: Final = CREDENTIAL_KINDS


class Touched(NamedTuple):
    """A target that must be judged now. New faults by what they count against; first: new first outputs."""

    part: WorkerTarget
    health: int = 0
    limits: int = 0
    credentials: dict[FaultKind, int] | None = None
    first: int = 0


def fold(  # noqa: C901  # the hot path: calls cost more here than everything they would do
    state: EngineState, report: Report, late_ms: int, now_ms: int
) -> list[Touched] | None:
    """Add a report. Returns what it touched that may matter, None when all is as it should be."""
    worker = state.workers.get(report.worker)
    if worker is None or worker.boot != report.boot:
        worker = _boot(state, worker, report)
        if worker is None:
            return None
    if report.seq <= worker.seq:
        state.count("reports_repeated")
        return None
    silent = now_ms - worker.last_at_ms > LIVE_MS
    worker.seq = report.seq
    worker.last_at_ms = now_ms
    worker.epoch = report.epoch
    worker.revision = report.revision
    worker.refused = report.refused
    worker.draining = report.draining
    worker.targets_left_out = report.targets_left_out
    if report.sessions != worker.sessions:
        state.sessions += report.sessions - worker.sessions
        worker.sessions = report.sessions
    if not worker.counted:
        worker.counted = True
        worker.host = report.host
        if report.seq > FRESH_SEQ:
            return _baseline(state, worker, report, now_ms)
        silent = False
    if late_ms > LATE_MS or silent:
        return _late(state, worker, report, now_ms)
    touched: list[Touched] | None = None
    parts = worker.targets
    place = 0
    for counts in report.targets:
        part = parts.get(counts.target)
        if part is None:
            part = hold(state, worker, counts.target, now_ms)
            if part is None:
                continue
        if part.order != place:
            _reorder(part, place, state)
        place += 1
        if part.fp != counts.key_fp:
            _new_key(part, counts.key_fp, state)
        target = part.target
        started = counts.started - part.started
        ok = counts.ok - part.ok
        first = counts.first_outputs - part.first
        if started < 0 or ok < 0 or first < 0 or counts.abandoned < part.abandoned:
            state.count("counters_backwards")
            continue
        if counts.faults != part.faults and _fewer(counts, part):
            state.count("counters_backwards")
            continue
        totals = target.totals
        totals.started += started
        totals.ok += ok
        part.ok_sum += ok
        if ok and not part.first and not counts.first_outputs:
            first = ok  # this worker does not say when output begins: a completion stands for it
        totals.first += first
        if counts.faults != part.faults:
            if touched is None:
                touched = []
            _faulty(part, counts, ok, first, now_ms, touched)
        elif ok or first:
            if target.run or part.run:
                _relieve(part, counts.started, ok, first)
            if target.watched and first:
                if touched is None:
                    touched = []
                touched.append(Touched(part, first=first))
        if counts.given_up > part.given_up:
            if touched is None:
                touched = []
            _lengthen(part, counts.started, counts.given_up - part.given_up, now_ms)
            target.late_run += counts.given_up - part.given_up
            touched.append(Touched(part))
        if first or counts.overdue or part.overdue:
            if counts.overdue > part.overdue:
                if touched is None:
                    touched = []
                touched.append(Touched(part))
            _overdue(part, counts.overdue, first, now_ms)
        if first:
            _slow(part, counts, first)
        target.in_flight += counts.in_flight - part.in_flight
        part.in_flight = counts.in_flight
        if started or ok or counts.in_flight:
            part.active_at_ms = now_ms
        part.started = counts.started
        part.ok = counts.ok
        part.abandoned = counts.abandoned
        part.first = counts.first_outputs
        part.faults = counts.faults
        part.hist = counts.histogram
        part.over_budget = counts.over_budget
        part.given_up = counts.given_up
        if ok:
            part.ok_at_ms = now_ms
    return touched


def hold(state: EngineState, worker: WorkerRec, target_id: str, now_ms: int) -> WorkerTarget | None:
    """The worker's part in a target, made when it is new; None (and counted) when it cannot be."""
    target = state.targets.get(target_id)
    if target is None:
        try:
            role = parse_target(target_id).role
        except TargetError:
            state.count("targets_unreadable")
            return None
        if len(state.targets) >= MAX_TARGETS_PER_FLEET:
            state.count("targets_over")
            return None
        target = TargetRec(target_id, state.book.of(target_id, role), now_ms)
        state.targets[target_id] = target
        state.refresh = True
    part = WorkerTarget(worker, target)
    worker.targets[target_id] = part
    target.workers[worker.id] = part
    target.held_at_ms = now_ms
    return part


def forget_gauges(part: WorkerTarget) -> None:
    """The worker is silent or gone: what it had waiting is not known any more."""
    target = part.target
    target.in_flight -= part.in_flight
    part.in_flight = 0
    if part.overdue:
        target.overdue -= part.overdue
        if part.base_seq == target.first_seq:
            target.overdue_run -= part.contrib
        part.overdue = part.base = part.contrib = part.own_base = 0


def leave(state: EngineState, worker: WorkerRec) -> None:
    """Forget a worker wholly."""
    state.sessions -= worker.sessions
    worker.sessions = 0
    for part in worker.targets.values():
        forget_gauges(part)
        part.target.workers.pop(worker.id, None)
    worker.targets.clear()
    state.workers.pop(worker.id, None)
    state.refresh = True


def _boot(state: EngineState, worker: WorkerRec | None, report: Report) -> WorkerRec | None:
    """A worker or boot not known. None when it is one that was already replaced (a worker id used twice)."""
    if worker is None:
        worker = WorkerRec(report.worker, report)
        state.workers[report.worker] = worker
        state.refresh = True
        return worker
    if report.boot in worker.old_boots:
        state.count("boots_returned")
        return None
    if worker.counted:
        state.count("boots_replaced")
    worker.old_boots.append(worker.boot)
    worker.boot = report.boot
    worker.seq = -1
    worker.counted = False
    for part in worker.targets.values():
        forget_gauges(part)
        part.zero()
    return worker


def _baseline(state: EngineState, worker: WorkerRec, report: Report, now_ms: int) -> None:
    """Counters of a boot whose beginning was not seen: only what comes after them counts."""
    state.count("baselines")
    for place, counts in enumerate(report.targets):
        part = worker.targets.get(counts.target) or hold(state, worker, counts.target, now_ms)
        if part is None:
            continue
        _reorder(part, place, state)
        if part.fp != counts.key_fp:
            _new_key(part, counts.key_fp, state)
        part.take(counts)
        part.target.in_flight += counts.in_flight - part.in_flight
        part.in_flight = counts.in_flight
        # Attempts overdue already may have been judged by the leader before: they are the base to count from.
        part.target.overdue += counts.overdue - part.overdue
        part.overdue = part.base = part.own_base = counts.overdue
        part.contrib = 0
        part.base_seq = part.target.first_seq


def _late(state: EngineState, worker: WorkerRec, report: Report, now_ms: int) -> None:
    """Too old to judge by, or spanning a silence: for the leader's history alone, and counted from here on."""
    state.count("reports_late")
    for counts in report.targets:
        part = worker.targets.get(counts.target) or hold(state, worker, counts.target, now_ms)
        if part is None:
            continue
        if counts.started < part.started or counts.ok < part.ok or counts.first_outputs < part.first:
            state.count("counters_backwards")
            continue
        if part.fp != counts.key_fp:
            _new_key(part, counts.key_fp, state)
        part.take(counts)


def _fewer(counts: TargetCounts, part: WorkerTarget) -> bool:
    """Whether some kind's count went backwards."""
    return any(n > counts.faults.get(kind, 0) for kind, n in part.faults.items())


def _faulty(
    part: WorkerTarget, counts: TargetCounts, ok: int, first: int, now_ms: int, touched: list[Touched]
) -> None:
    """New faults, by what they count against."""
    target, before = part.target, part.faults
    slot = target.kinds[-1]
    health = limits = 0
    credentials: dict[FaultKind, int] | None = None
    for kind, n in counts.faults.items():
        new = n - before.get(kind, 0)
        if not new:
            continue
        slot[kind] = slot.get(kind, 0) + new
        if kind in _HEALTH:
            health += new
            if kind is FaultKind.FIRST_OUTPUT_TIMEOUT:
                target.late_run += new
        elif kind is FaultKind.RATE_LIMIT:
            limits += new
            part.retry_after_ms = counts.retry_after_ms
        elif kind in _CREDENTIAL:
            credentials = credentials or {}
            credentials[kind] = new
    part.active_at_ms = now_ms
    if health:
        target.totals.faults += health
        part.fault_sum += health
        if target.v.ramp_at_ms:
            target.ramp_faulty.add(part.worker.id)
        _lengthen(part, counts.started, health, now_ms)
    if ok or first:
        _relieve(part, counts.started, ok, first, min(counts.trailing_faults, health))
    touched.append(Touched(part, health, limits, credentials, first))


def _lengthen(part: WorkerTarget, part_started: int, new: int, now_ms: int) -> None:
    """The fleet's run and the worker's grow, or begin: by faults, or by attempts given up while overdue."""
    target = part.target
    if not target.run:
        target.run_from_ms = now_ms
        target.run_first = 0
        target.run_started = target.totals.started - new
        target.run_before = target.in_flight
    if not part.run:
        part.run_first = 0
        part.run_started = part_started - new
        part.run_before = part.in_flight
    target.run += new
    part.run += new
    target.run_at_ms = part.run_at_ms = now_ms


def _relieve(part: WorkerTarget, part_started: int, ok: int, first: int, trailing: int = 0) -> None:
    """Completions or first outputs; `trailing`: faults of the same report that came after the last completion."""
    target = part.target
    if target.run:
        target.run_first += first
        target.run_before -= ok
        mixed = target.run_before < 0 or _mixed(target.run, target.totals.started - target.run_started)
        if ok and target.run_first and mixed:
            target.run = target.run_first = 0
            if trailing:
                _lengthen_to(target, trailing)
    if part.run:
        part.run_first += first
        part.run_before -= ok
        mixed = part.run_before < 0 or _mixed(part.run, part_started - part.run_started)
        if ok and part.run_first and mixed:
            part.run, part.run_first = trailing, 0
            part.run_started, part.run_before = part_started - trailing, part.in_flight


def _lengthen_to(target: TargetRec, trailing: int) -> None:
    target.run = trailing
    target.run_from_ms = target.run_at_ms
    target.run_started = target.totals.started - trailing
    target.run_before = target.in_flight


def _mixed(run: int, begun: int) -> bool:
    """Whether so many attempts begun since a run began are more than its faults explain.

    A completion breaks a run only if some attempt had output since the run began, and either a quarter of what
    began since then has not failed, or more came to an end than were under way at its begin (`run_before`): else
    it is an answer that was already being given when the trouble started, and says nothing about new attempts.
    Without this the answers under way hide an outage for as long as they last.
    """
    return 4 * run < 3 * begun


def _overdue(part: WorkerTarget, overdue: int, first: int, now_ms: int) -> None:
    """Keep the run of overdue attempts: those that became overdue since the fleet's last first output.

    After a first output somewhere, what waits at that moment (`base`) is no evidence of a hang any more; the
    bases of the other workers are brought up to date when they report next (`base_seq`).
    """
    target = part.target
    if first:
        target.first_seq += 1
        target.overdue_run = target.late_run = 0
        part.base = part.own_base = overdue
        part.base_seq = target.first_seq
        part.contrib = 0
    else:
        if part.base_seq != target.first_seq:
            part.base = part.overdue
            part.base_seq = target.first_seq
            part.contrib = 0
        part.base = min(part.base, overdue)
        part.own_base = min(part.own_base, overdue)
        contrib = overdue - part.base
        if contrib and not target.overdue_run:
            target.overdue_from_ms = now_ms
        target.overdue_run += contrib - part.contrib
        part.contrib = contrib
    target.overdue += overdue - part.overdue
    part.overdue = overdue


def _slow(part: WorkerTarget, counts: TargetCounts, first: int) -> None:
    """Keep whether each of the last ten first outputs was over the budget (newest in the lowest bit)."""
    target = part.target
    if counts.histogram:
        tail = sum(counts.histogram[target.slow_bucket :])
        slow, part.slow = tail - part.slow, tail
    else:
        slow = counts.over_budget - part.over_budget
    if slow <= 0:
        if target.slow_bits:
            target.slow_bits = (target.slow_bits << min(10, first)) & 0x3FF
    else:
        slow = min(slow, first)
        quick, new = min(10, first - slow), min(10, slow)
        target.slow_bits = ((target.slow_bits << quick << new) | ((1 << new) - 1)) & 0x3FF
        target.totals.slow += slow


def _reorder(part: WorkerTarget, place: int, state: EngineState) -> None:
    part.order = place
    state.refresh = True


def _new_key(part: WorkerTarget, fp: str, state: EngineState) -> None:
    part.fp = fp
    state.refresh = True
