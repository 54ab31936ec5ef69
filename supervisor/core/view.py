"""The state as people see it (`FleetView`). Reads only: windows stand where the last step left them."""

from __future__ import annotations

from supervisor.core import credentials, publish
from supervisor.core.publish import Place
from supervisor.core.state import EngineState, TargetRec, WorkerRec
from supervisor.core.transitions import CONDEMNED
from supervisor.core.windows import Counts
from supervisor.wire.view import FleetView, TargetView, WorkerView
from supervisor.wire.vocabulary import FaultKind


def view(state: EngineState, now_ms: int, leader: str) -> FleetView:
    """Everything at one moment. Targets stand by role, then rank."""
    placed = publish.places(state)
    placed.sort(key=lambda p: (p.target.role.value, p.rank))
    return FleetView(
        at_ms=now_ms,
        leader=leader,
        epoch=state.epoch,
        revision=state.revision,
        targets=tuple(_target(state, place, now_ms) for place in placed),
        workers=tuple(_worker(w) for _, w in sorted(state.workers.items())),
        panic_roles=tuple(sorted({p.target.role for p in placed if p.panic})),
        settling_until_at_ms=state.settling_until_at_ms if state.settling_until_at_ms > now_ms else 0,
        counters=dict(state.counters),
    )


def _target(state: EngineState, place: Place, now_ms: int) -> TargetView:
    target = place.target
    verdict = target.v
    short, long = target.w10.sums(target.totals), target.w60.sums(target.totals)
    kinds: dict[FaultKind, int] = {}
    for slot in target.kinds:
        for kind, n in slot.items():
            kinds[kind] = kinds.get(kind, 0) + n
    live = [p for p in target.workers.values() if p.worker.live(now_ms)]
    held = place.hold_until_at_ms > now_ms
    return TargetView(
        id=target.id,
        role=target.role,
        provider=target.provider,
        model=target.model,
        state=verdict.state,
        override=place.override,
        since_at_ms=verdict.since_at_ms,
        reason=target.published.reason if target.published else verdict.reason,
        revision=target.published.revision if target.published else 0,
        admit=0.0 if held else place.admit,
        rank=place.rank,
        attempts=short.started,
        faults=short.faults,
        fault_rate=_rate(short),
        attempts_60s=long.started,
        faults_60s=long.faults,
        fault_rate_60s=_rate(long),
        faults_by_kind_60s=kinds,
        workers=len(live),
        sessions=sum(p.worker.sessions for p in live),
        in_flight=max(0, target.in_flight),
        overdue=max(0, target.overdue),
        first_output_p50_ms=target.p50_ms,
        first_output_p95_ms=target.p95_ms,
        hold_off_until_at_ms=verdict.hold_until_at_ms if verdict.hold_until_at_ms > now_ms else 0,
        next_probe_at_ms=verdict.next_probe_at_ms if verdict.state in CONDEMNED else 0,
        probes_in_flight=1 if target.probe else 0,
        incident=verdict.incident,
        panic=place.panic,
        evidence=_evidence(state, target),
        condemned_keys=credentials.condemned_fps(state, target),
    )


def _rate(counts: Counts) -> float:
    return round(counts.faults / counts.finished, 4) if counts.finished else 0.0


def _evidence(state: EngineState, target: TargetRec) -> dict[str, float | int | str]:
    shown: dict[str, float | int | str] = (
        {"rule": target.v.rule, **target.v.evidence} if target.v.rule else {}
    )
    if target.fleet_run:
        shown["run_now"] = target.fleet_run
    if target.v.goods:
        shown["good_probes"] = target.v.goods
    for source, check in sorted(state.checks.get(target.provider, {}).items()):
        shown[f"check_{source}"] = "ok" if check.ok else check.detail or "failed"
    return shown


def _worker(worker: WorkerRec) -> WorkerView:
    bad = {p.target.id: p.flagged for p in worker.targets.values() if p.flagged}
    return WorkerView(
        worker=worker.id,
        host=worker.host,
        sessions=worker.sessions,
        revision=worker.revision,
        refused=worker.refused,
        last_report_at_ms=worker.last_at_ms,
        flagged=next(iter(bad.values()), ""),
        bad_on=tuple(sorted(bad)),
        targets_left_out=worker.targets_left_out,
    )
