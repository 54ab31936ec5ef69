"""Refused keys: `authentication` and `quota` condemn (provider, key), `permission` one target for that key.

Rules: two workers refused with the same key, or the only one that uses it, condemn it for the fleet and raise
an alarm that names provider and fingerprint (never the key). Holders of another key go on. Only good probes
with that very key, or its disappearance, take it back.
"""

from __future__ import annotations

from typing import Final

from supervisor.core import probing, suspicion, verdicts
from supervisor.core.context import Context
from supervisor.core.evidence import Finding
from supervisor.core.state import EngineState, KeyEvidence, TargetRec, WorkerTarget
from supervisor.core.stats import jittered
from supervisor.core.transitions import CONDEMNED, Trigger
from supervisor.wire.vocabulary import KIND_RULES, FaultKind

UNSEEN_MS: Final = 600_000  # a key that nobody has used for so long is forgotten
MAX_KEYS: Final = 256  # so many at a time: what workers are told of them has to fit into a message


def on_refusals(ctx: Context, part: WorkerTarget, kinds: dict[FaultKind, int]) -> None:
    """A worker's key was refused."""
    for kind, n in kinds.items():
        scope = part.target.id if KIND_RULES[kind].whole_target else part.target.provider
        record = ctx.state.keys.get((scope, part.fp))
        if record is None:
            if len(ctx.state.keys) >= MAX_KEYS:
                ctx.state.count("keys_over")
                continue
            record = KeyEvidence(scope=scope, fp=part.fp, kind=kind.value, workers={})
            ctx.state.keys[scope, part.fp] = record
        record.kind = kind.value
        record.seen_at_ms = ctx.now_ms
        before = record.workers.get(part.worker.id, [0, 0])
        record.workers[part.worker.id] = [before[0] + n, ctx.now_ms]
        watch(ctx.state)
        _decide(ctx, record, part)


def on_works(ctx: Context, part: WorkerTarget) -> None:
    """An attempt of this worker had output: its own refusals before that are void. Condemnations stand."""
    for scope in (part.target.provider, part.target.id):
        record = ctx.state.keys.get((scope, part.fp))
        if record is not None and not record.condemned_at_ms:
            record.workers.pop(part.worker.id, None)
            if not record.workers:
                del ctx.state.keys[scope, part.fp]
                watch(ctx.state)


def on_probe(ctx: Context, target: TargetRec, fp: str, verdict: str) -> None:
    """A probe with this key ended `good` or `refused`."""
    for scope in (target.provider, target.id):
        record = ctx.state.keys.get((scope, fp))
        if record is None or not record.condemned_at_ms:
            continue
        record.seen_at_ms = ctx.now_ms
        if verdict == "good":
            record.goods += 1
            record.next_probe_at_ms = ctx.now_ms + target.policy.probe_again_ms
            if record.goods >= target.policy.probe_goods:
                _release(ctx, record, "two probes with it came to a good end")
        else:
            record.goods = 0


def tick(ctx: Context) -> None:
    """Forget old refusals, probe keys whose targets others still use, let go of keys nobody has."""
    for record in list(ctx.state.keys.values()):
        targets = _targets(ctx.state, record)
        holders = [p for t in targets for p in _holders(t, record.fp, ctx.now_ms)]
        if holders:
            record.seen_at_ms = ctx.now_ms
        elif ctx.now_ms - record.seen_at_ms > UNSEEN_MS:
            _release(ctx, record, "nobody has used it for ten minutes")
            continue
        if record.condemned_at_ms:
            _probe(ctx, record, holders)
            continue
        forget = targets[0].policy.credential_forget_ms if targets else 0
        for worker, (_, at_ms) in list(record.workers.items()):
            if ctx.now_ms - at_ms > forget:
                del record.workers[worker]
        if not record.workers:
            del ctx.state.keys[record.scope, record.fp]
            watch(ctx.state)


def settle_targets(ctx: Context) -> None:
    """Who holds which key changed, or a key's verdict did: bring the targets' verdicts in line."""
    for target in ctx.state.targets.values():
        shut = shut_by_key(ctx.state, target)
        verdict = target.v
        if shut and verdict.state not in CONDEMNED and not ctx.settling:
            record = _record_of(ctx.state, target)
            if record is not None:
                verdicts.condemn(ctx, target, Trigger.CONDEMN, _finding(record), None)
        elif not shut and verdict.by_key and verdict.state in CONDEMNED:
            # A good key is there: find out at once whether it works.
            verdict.by_key = False
            verdict.next_probe_at_ms = min(verdict.next_probe_at_ms, ctx.now_ms)


def shut_by_key(state: EngineState, target: TargetRec) -> bool:
    """Whether every worker that holds the target holds it with a condemned key."""
    if not state.keys or not target.workers:
        return False
    parts = [p for p in target.workers.values() if p.worker.live(state.now_ms)] or target.workers.values()
    return all(probing.key_condemned(state, target, part.fp) for part in parts)


def condemned_fps(state: EngineState, target: TargetRec) -> tuple[str, ...]:
    """The fingerprints whose holders must not use the target."""
    if not state.keys:
        return ()
    return tuple(
        sorted(
            {
                r.fp
                for r in state.keys.values()
                if r.condemned_at_ms and r.scope in (target.provider, target.id)
            }
        )
    )


def _decide(ctx: Context, record: KeyEvidence, part: WorkerTarget) -> None:
    if record.condemned_at_ms or ctx.settling:
        return
    policy, now = part.target.policy, ctx.now_ms
    fresh = {w: n for w, (n, at_ms) in record.workers.items() if now - at_ms <= policy.credential_forget_ms}
    users = {p.worker.id for t in _targets(ctx.state, record) for p in _holders(t, record.fp, now)}
    if len(fresh) >= 2 or (users <= set(fresh) and sum(fresh.values()) >= policy.credential_faults):
        _condemn(ctx, record)
    elif users - set(fresh):
        # Somebody else has the same key: his probe tells at once whose fault it is.
        suspicion.start(ctx, part.target, part.fp, part.worker.id)


def _condemn(ctx: Context, record: KeyEvidence) -> None:
    record.condemned_at_ms = ctx.now_ms
    record.goods = 0
    finding = _finding(record)
    ctx.publish = True
    targets = _targets(ctx.state, record)
    record.next_probe_at_ms = ctx.now_ms + (targets[0].policy.probe_credentials_ms if targets else 0)
    ctx.emit(
        "alarm", targets[0] if len(targets) == 1 else None, reason=finding.reason, evidence=finding.numbers
    )
    settle_targets(ctx)


def _release(ctx: Context, record: KeyEvidence, why: str) -> None:
    ctx.state.keys.pop((record.scope, record.fp), None)
    watch(ctx.state)
    if record.condemned_at_ms:
        ctx.publish = True
        ctx.emit("alarm", after="over", reason=f"{_name(record)} is used again: {why}")
        settle_targets(ctx)


def _probe(ctx: Context, record: KeyEvidence, holders: list[WorkerTarget]) -> None:
    """A key whose targets are in use by others has its own probes; shut targets have theirs already."""
    if ctx.now_ms < record.next_probe_at_ms or not ctx.state.leading:
        return
    ready = [
        p for p in holders
        if p.target.probe is None and p.target.v.state not in CONDEMNED and not p.worker.draining
        and not probing.over_cap(p.target, ctx.now_ms)
    ]  # fmt: skip
    if not ready:
        return
    ready.sort(key=lambda p: (p.worker.id <= p.target.last_prober, p.worker.id, p.target.id))
    target = ready[0].target
    pause = jittered(
        target.policy.probe_credentials_ms, target.policy.probe_jitter, record.fp, target.v.probes_sent
    )
    record.next_probe_at_ms = ctx.now_ms + pause
    probing.send(ctx, target, ready[0], "key", target.policy.probe_budget_ms, _name(record))


def _targets(state: EngineState, record: KeyEvidence) -> list[TargetRec]:
    return [t for t in state.targets.values() if record.scope in (t.provider, t.id)]


def _holders(target: TargetRec, fp: str, now_ms: int) -> list[WorkerTarget]:
    return [p for p in target.workers.values() if p.fp == fp and p.worker.live(now_ms)]


def _record_of(state: EngineState, target: TargetRec) -> KeyEvidence | None:
    for scope in (target.id, target.provider):
        for record in state.keys.values():
            if record.scope == scope and record.condemned_at_ms:
                return record
    return None


def _name(record: KeyEvidence) -> str:
    return f"the key {record.fp or '(unknown)'} for {record.scope}"


def _finding(record: KeyEvidence) -> Finding:
    workers = len(record.workers)
    said = {
        "authentication": "as invalid",
        "permission": "for lack of permission",
        "quota": "for lack of quota",
    }
    reason = (
        f"{_name(record)} is refused {said.get(record.kind, '')} ({workers} worker{'s' * (workers != 1)})"
    )
    return Finding("credentials", reason, {"key": record.fp, "kind": record.kind, "workers": workers})


def watch(state: EngineState) -> None:
    """Targets whose first outputs matter at once, see `fold`."""
    scopes = {record.scope for record in state.keys.values() if not record.condemned_at_ms}
    for target in state.targets.values():
        panic = target.published is not None and target.published.panic
        target.watched = panic or target.provider in scopes or target.id in scopes
