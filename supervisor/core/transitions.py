"""The states of a target and every move between them, as data; the docs' diagram is made from this table.

Rule: `next_state` is the only way a verdict changes. An illegal move raises `IllegalTransition` and changes
nothing. There is no move from `unhealthy` to any state that admits calls but through `probing`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from supervisor.wire.vocabulary import State


class Trigger(StrEnum):
    """Why a verdict moves."""

    CONDEMN = "condemn"  # run, rate, suspicion or credentials, with quorum
    DEGRADE = "degrade"  # bad or slow, but not dead
    CLEAR = "clear"  # quiet for long enough
    LIMIT = "limit"  # the provider said 429
    HOLD_OVER = "hold_over"  # the hold-off is over
    PROBE_SENT = "probe_sent"
    PROBE_FAILED = "probe_failed"  # or lost: then it proves nothing, and waits for the next
    PROVEN = "proven"  # enough good probes in a row, and re-admission is due
    RAMP_FAILED = "ramp_failed"
    RAMPED = "ramped"  # the last step was reached


class IllegalTransition(ValueError):
    """The table has no such move; the verdict stays as it was. This is a bug in the caller."""

    def __init__(self, state: State, trigger: Trigger) -> None:
        super().__init__(f"a target that is {state} cannot {trigger}")
        self.state = state
        self.trigger = trigger


_S, _T = State, Trigger

TABLE: Final[dict[tuple[State, Trigger], State]] = {
    (_S.HEALTHY, _T.CONDEMN): _S.UNHEALTHY,
    (_S.HEALTHY, _T.DEGRADE): _S.DEGRADED,
    (_S.HEALTHY, _T.LIMIT): _S.LIMITED,
    (_S.DEGRADED, _T.CONDEMN): _S.UNHEALTHY,
    (_S.DEGRADED, _T.CLEAR): _S.HEALTHY,
    (_S.DEGRADED, _T.LIMIT): _S.LIMITED,
    (_S.LIMITED, _T.CONDEMN): _S.UNHEALTHY,
    (_S.LIMITED, _T.HOLD_OVER): _S.RAMPING,
    (_S.UNHEALTHY, _T.PROBE_SENT): _S.PROBING,
    (_S.PROBING, _T.PROBE_FAILED): _S.UNHEALTHY,
    (_S.PROBING, _T.PROVEN): _S.RAMPING,
    (_S.RAMPING, _T.RAMP_FAILED): _S.UNHEALTHY,
    (_S.RAMPING, _T.CONDEMN): _S.UNHEALTHY,
    (_S.RAMPING, _T.LIMIT): _S.LIMITED,
    (_S.RAMPING, _T.RAMPED): _S.HEALTHY,
}

CONDEMNED: Final = frozenset({State.UNHEALTHY, State.PROBING})


def next_state(state: State, trigger: Trigger) -> State:
    """Where `trigger` leads from `state`. Raises `IllegalTransition`."""
    try:
        return TABLE[state, trigger]
    except KeyError:
        raise IllegalTransition(state, trigger) from None


def mermaid() -> str:
    """The table as a Mermaid state diagram (docs/engine.md, docs/architecture.md)."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.HEALTHY}"]
    lines += [f"    {before} --> {after}: {trigger}" for (before, trigger), after in TABLE.items()]
    return "\n".join(lines)
