"""One step's context: the state, the time, and what is to be done; and the one way a verdict moves.

Rule: whatever changes a verdict goes through `Context.move`, so that every change has a reason in words, its
numbers, an event and, from leaving `healthy` to being back, an incident.
"""

from __future__ import annotations

from supervisor.core.effects import SendProbe
from supervisor.core.state import EngineState, Evidence, TargetRec
from supervisor.core.transitions import CONDEMNED, Trigger, next_state
from supervisor.wire.messages import Event
from supervisor.wire.targets import key_hash
from supervisor.wire.vocabulary import State

MAX_REASON = 300
# Moves that come with every probe: told as events of the probe, not as verdicts.
_QUIET = frozenset({Trigger.PROBE_SENT, Trigger.PROBE_FAILED})


class Context:
    """What the rules of one step share."""

    __slots__ = ("events", "now_ms", "probes", "publish", "removed", "state", "took_over")

    def __init__(self, state: EngineState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.events: list[Event] = []
        self.probes: list[SendProbe] = []
        self.publish = False
        self.removed: tuple[str, ...] = ()
        self.took_over = False

    @property
    def settling(self) -> bool:
        """Reports may be missing: nobody new is condemned."""
        return self.now_ms < self.state.settling_until_at_ms

    def move(self, target: TargetRec, trigger: Trigger, rule: str, reason: str, evidence: Evidence) -> State:
        """Move a verdict by the table, with its evidence. Raises `IllegalTransition` and changes nothing."""
        verdict = target.v
        before = verdict.state
        after = next_state(before, trigger)
        now = self.now_ms
        verdict.state = after
        self.publish = True
        if trigger in _QUIET:
            return after
        verdict.reason, verdict.rule, verdict.evidence = reason[:MAX_REASON], rule, evidence
        verdict.since_at_ms = now
        verdict.ramp_at_ms = verdict.ramp_step = verdict.clear_since_at_ms = 0
        if not verdict.incident and before is State.HEALTHY:
            verdict.incident = f"{key_hash(target.id)}-{now}"
            verdict.incident_at_ms = now
            self.emit("incident", target, after="opened", reason=reason, evidence=evidence)
        self.emit(
            "verdict", target, before=before, after=after, reason=reason, evidence={"rule": rule, **evidence}
        )
        if after is State.HEALTHY:
            verdict.level_at_ms = now
            lasted = now - verdict.incident_at_ms
            self.emit("incident", target, after="closed", reason=reason, evidence={"lasted_ms": lasted})
            verdict.incident, verdict.incident_at_ms = "", 0
        if after not in CONDEMNED:
            verdict.by_key = False
        return after

    def emit(
        self,
        kind: str,
        target: TargetRec | None = None,
        *,
        before: str = "",
        after: str = "",
        reason: str = "",
        worker: str = "",
        evidence: Evidence | None = None,
    ) -> None:
        """Say something to people (`events`). The revision is filled in when the step ends."""
        self.events.append(
            Event(
                at_ms=self.now_ms,
                kind=kind,
                target=target.id if target else "",
                before=before,
                after=after,
                reason=reason[:MAX_REASON],
                epoch=self.state.epoch,
                worker=worker,
                incident=target.v.incident if target else "",
                evidence=evidence or {},
            )
        )
