"""Operators' verdicts: they lie over the engine's, which goes on beneath, and they expire.

Rule: a target's own override wins over its provider's.
"""

from __future__ import annotations

from supervisor.core.context import Context
from supervisor.core.state import EngineState, TargetRec
from supervisor.wire.messages import OverrideRecord

PROVIDER = "provider:"


def override_of(state: EngineState, target: TargetRec) -> OverrideRecord | None:
    """The override in force over a target, if any."""
    if not state.overrides:
        return None
    return state.overrides.get(target.id) or state.overrides.get(PROVIDER + target.provider)


def put(ctx: Context, record: OverrideRecord) -> None:
    """Set or replace; one that is over already is not taken."""
    if record.expires_at_ms and record.expires_at_ms <= ctx.now_ms:
        ctx.state.count("overrides_expired")
        return
    before = ctx.state.overrides.get(record.scope)
    ctx.state.overrides[record.scope] = record
    _tell(
        ctx,
        record.scope,
        before.state.value if before else "",
        record.state.value,
        record.reason,
        record.actor,
    )


def clear(ctx: Context, scope: str, actor: str) -> None:
    """Take back; nothing happens when there is none."""
    record = ctx.state.overrides.pop(scope, None)
    if record is not None:
        _tell(ctx, scope, record.state.value, "", "taken back", actor)


def expire(ctx: Context) -> None:
    """Drop what has run out."""
    for scope, record in list(ctx.state.overrides.items()):
        if record.expires_at_ms and record.expires_at_ms <= ctx.now_ms:
            del ctx.state.overrides[scope]
            _tell(ctx, scope, record.state.value, "", "it has expired", record.actor)


def _tell(ctx: Context, scope: str, before: str, after: str, reason: str, actor: str) -> None:
    ctx.publish = True
    target = ctx.state.targets.get(scope)
    text = f"override of {scope}: {reason}"
    ctx.emit(
        "operator", target, before=before, after=after, reason=text, evidence={"scope": scope, "actor": actor}
    )
