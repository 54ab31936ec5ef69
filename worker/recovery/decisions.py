"""What to do about an error in a session: pure, one value in, one value out.

The order of the rules: already recoverable → nothing; nobody waits for an answer → only noted; within the limit →
an apology; over it → the final message. TTS faults never go through the TTS: saying so with the dead voice would
fail again, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.counters import Count


class Do(StrEnum):
    """What the caller notices."""

    NOTHING = "nothing"
    APOLOGISE = "apologise"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Happened:
    """One error as the session told it.

    recoverable: livekit (or somebody before us) said so. waiting: the caller waits for an answer, or will.
    """

    role: Role
    kind: FaultKind
    recoverable: bool = False
    waiting: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why, and whether the voice itself is gone, so that only recorded sound is left."""

    do: Do
    role: Role
    kind: FaultKind
    reason: str
    voice_dead: bool = False

    @property
    def message_keys(self) -> tuple[str, ...]:
        """Which messages fit, best first."""
        if self.do is Do.FINAL:
            return ("final",)
        return (f"{self.role.value}.{self.kind.value}", self.role.value)


def decide(happened: Happened, count: Count | None, *, voice_dead: bool) -> Decision:
    """See the module. count: None when the error does not count. voice_dead: no TTS can be used now."""
    role, kind = happened.role, happened.kind
    dead = voice_dead or role is Role.TTS
    if happened.recoverable:
        return Decision(Do.NOTHING, role, kind, "already recoverable", dead)
    if not happened.waiting or count is None:
        return Decision(Do.NOTHING, role, kind, "nobody waits for an answer", dead)
    if count.exhausted:
        return Decision(Do.FINAL, role, kind, f"{count.count} in a row, {count.limit} allowed", dead)
    return Decision(Do.APOLOGISE, role, kind, f"{count.count} of {count.limit}", dead)
