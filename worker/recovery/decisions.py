"""What to do about an error that a caller waits behind: pure, one value in, one value out.

Within the limit an apology, over it the final message. TTS faults never go through the TTS: saying so with the dead
voice would fail again, for ever. (What is already recoverable, and what nobody waits for, `SessionWatch` only notes.)
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


def decide(role: Role, kind: FaultKind, count: Count, *, voice_dead: bool) -> Decision:
    """See the module. voice_dead: no TTS can be used now."""
    dead = voice_dead or role is Role.TTS
    if count.exhausted:
        return Decision(Do.FINAL, role, kind, f"{count.count} in a row, {count.limit} allowed", dead)
    return Decision(Do.APOLOGISE, role, kind, f"{count.count} of {count.limit}", dead)
