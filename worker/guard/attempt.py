"""One request to one target: its clock, its deadlines, and its one end. Made by `routing.Turn.begin`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from supervisor.wire.messages import FaultEvent, Snapshot
from supervisor.wire.vocabulary import Phase
from worker.guard.faults import Fault
from worker.guard.names import Child
from worker.link.api import Rule, Use

if TYPE_CHECKING:
    from worker.guard.routing import Guard, Turn

P = TypeVar("P")

_HOST: Final = socket.gethostname()[:128] or "host"


class Woke(StrEnum):
    """Why a wait ended."""

    READY = "ready"
    DEADLINE = "deadline"
    VERDICT = "verdict"
    TIMEOUT = "timeout"


class Attempt(Generic[P]):
    """One request to one target. Made by `Turn.begin`; ended by `Turn.fail`, `succeeded` or `abandoned`."""

    __slots__ = (
        "_guard", "_id", "_verdict", "child", "done", "first_output_mono", "number", "phase", "snapshot",
        "started_mono", "turn",
    )  # fmt: skip

    def __init__(self, guard: Guard[P], turn: Turn[P], child: Child[P], number: int, rule: Rule) -> None:
        self._guard = guard
        self.turn = turn
        self.child = child
        self.number = number
        self.snapshot: Snapshot = rule.snapshot
        self.phase = Phase.CONNECT
        self.done = False
        self.first_output_mono = 0.0
        self._verdict: asyncio.Future[None] | None = None
        self.started_mono = guard.clock()
        self._id = guard.link.started(child.target, self.snapshot.first_output_ms)

    @property
    def deadline_mono(self) -> float:
        """When its first output is due (monotonic seconds)."""
        return self.started_mono + self.snapshot.first_output_ms / 1000

    @property
    def stall_s(self) -> float:
        """Longest silence between two outputs, in seconds."""
        return self.snapshot.stall_ms / 1000

    @property
    def heard(self) -> bool:
        """Whether it has given any output."""
        return self.first_output_mono > 0.0

    @property
    def waited_ms(self) -> int:
        """Time to its first output, or time waited so far."""
        until = self.first_output_mono or self._guard.clock()
        return max(0, int((until - self.started_mono) * 1000))

    def connected(self) -> None:
        """The service took the request; from here on a fault is one of the first output."""
        if self.phase is Phase.CONNECT:
            self.phase = Phase.FIRST_OUTPUT

    def first_output(self) -> None:
        """The first real output is here (again: nothing happens)."""
        if self.done or self.heard:
            return
        self.first_output_mono = self._guard.clock()
        self.phase = Phase.MID_STREAM
        self._guard.answers(self.child.target)
        self._guard.link.first_output(self._id, self.waited_ms)

    def succeeded(self, use: Use | None = None) -> None:
        """The request ended well."""
        if self._end():
            self._guard.link.succeeded(self._id, use or Use())

    def abandoned(self) -> None:
        """We gave it up; counts against nobody. Harmless on an attempt that has ended."""
        if self._end():
            self._guard.link.abandoned(self._id)

    def report(self, fault: Fault, action: str) -> bool:
        """Count a fault and tell it in one line. Guards call `Turn.fail`, which decides `action` first."""
        if not self._end():
            return False
        event = FaultEvent(
            at_ms=time.time_ns() // 1_000_000,
            worker=self._guard.link.worker,
            host=_HOST,
            target=self.child.target,
            session=self._guard.session[:128],
            turn=self.turn.number,
            kind=fault.kind,
            status=fault.status,
            request_id=fault.request_id[:128],
            attempt=self.number,
            phase=fault.phase,
            action=action[:64],
            message=fault.message[:300],
            waited_ms=self.waited_ms,
        )
        self._guard.link.failed(self._id, fault.kind, event, fault.retry_after_ms)
        return True

    async def wait(self, future: asyncio.Future[Any], *, timeout_s: float | None = None) -> Woke:
        """Wait for `future`, at most until the first output is due (or for `timeout_s`, if sooner).

        VERDICT: the target is no longer admitted and another one is. The future is never cancelled here.
        """
        verdict = self.verdict()
        until = self.deadline_mono - self._guard.clock()
        limit = until if timeout_s is None else min(until, timeout_s)
        await asyncio.wait({future, verdict}, timeout=max(limit, 0.0), return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return Woke.READY
        if verdict.done():
            return Woke.VERDICT
        return Woke.DEADLINE if until <= limit else Woke.TIMEOUT

    def verdict(self) -> asyncio.Future[None]:
        """Done as soon as a new verdict says to go elsewhere while nothing was heard yet."""
        if self._verdict is None:
            self._verdict = asyncio.get_running_loop().create_future()
            self._guard.check(self)
        return self._verdict

    def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """See `Guard.keep`."""
        self._guard.keep(work)

    def move_on(self) -> None:
        """Called by the guard when the rules changed."""
        if self._verdict is not None and not self._verdict.done():
            self._verdict.set_result(None)

    def _end(self) -> bool:
        if self.done:
            return False
        self.done = True
        self._guard.forget(self)
        if not self.heard and self.snapshot.hedge_ms and self.waited_ms >= self.snapshot.hedge_ms:
            self._guard.kept_waiting(self.child.target)
        return True
