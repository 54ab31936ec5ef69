"""The container's own breaker for one target: 3 faults in a row put it off for 5 s, whoever leads the fleet.

Who owns the verdict: the leader. This breaker only narrows, for 5 s at a time, in one container, so that its
calls are spared while a verdict is on its way or nobody is there to give one. It never admits what the leader
has shut, it writes nothing to the leader, and it never takes away the last admitted target of a role:
`may_open` is asked first, and `supervisor.core.admission` admits all again should it happen even so.

Pure: monotonic seconds come in as arguments.
"""

from __future__ import annotations

from typing import Final

from supervisor.wire.vocabulary import CREDENTIAL_KINDS, HEALTH_KINDS, FaultKind

RUN: Final = 3
OPEN_S: Final = 5.0

# What says that asking again now is pointless. `concurrency` only means "not one more at this moment", and
# `local` and `bad_request` are no fault of the target.
COUNTED_KINDS: Final = HEALTH_KINDS | CREDENTIAL_KINDS | {FaultKind.RATE_LIMIT}


class Breaker:
    """One target in one container.

    run: counted faults since the last success. open_until_mono: CLOCK_MONOTONIC seconds (0.0: closed).
    After 5 s the run still stands: the next fault opens it again at once, a success ends it for good.
    """

    __slots__ = ("open_until_mono", "run")

    def __init__(self) -> None:
        self.run = 0
        self.open_until_mono = 0.0

    def success(self) -> bool:
        """A request came to a good end. True when that closed an open breaker."""
        self.run = 0
        if self.open_until_mono:
            self.open_until_mono = 0.0
            return True
        return False

    def fault(self, kind: FaultKind) -> None:
        """A request ended badly; kinds that are not the target's doing leave the run as it is."""
        if kind in COUNTED_KINDS:
            self.run += 1

    def due(self, now_mono: float, overdue: int = 0) -> bool:
        """Whether it should open now: `overdue` attempts (waiting too long for output) count like faults."""
        return self.run + overdue >= RUN and now_mono >= self.open_until_mono

    def open(self, now_mono: float) -> None:
        """Put the target off for 5 s from now."""
        self.open_until_mono = now_mono + OPEN_S

    def is_open(self, now_mono: float) -> bool:
        return now_mono < self.open_until_mono


def may_open(peers_admitted: int) -> bool:
    """Whether a breaker may open when so many *other* targets of the role are fully admitted here and now."""
    return peers_admitted > 0
