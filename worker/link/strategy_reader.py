"""Reading the strategy: all of it when asked to, and its head every 5 s ± 20 %, with the leader's lease.

The lease says whether somebody still stands behind the strategy: snapshots live for their `ttl_ms` from the
moment a leader was last seen, so an old strategy does not hold for ever because Redis kept it.
"""

from __future__ import annotations

import random
from typing import Final, cast

import structlog

from supervisor.wire.keys import Keys
from worker.link.core import LinkCore
from worker.link.redis_wire import Answer
from worker.link.rounds import Round
from worker.link.strategy import HEAD_FIELD, Applied

_log = structlog.get_logger("worker.link")

COMPARE_S: Final = 5.0
AT_MOST_EVERY_S: Final = 0.25  # garbage on the wake channel must not make us read without end
_BAD: Final = (Applied.OLDER, Applied.EMPTY, Applied.REFUSED)


class StrategyReader:
    """Adds its commands to rounds of the reporter and takes their answers into the core."""

    def __init__(self, core: LinkCore, keys: Keys) -> None:
        self._core = core
        self._keys = keys
        self._want_all = True
        self._compare_mono = 0.0
        self._read_mono = float("-inf")
        self._leader_until_ms: int | None = None
        self._last = Applied.SAME
        self.reads = 0  # of the whole strategy

    def want_all(self) -> None:
        """Read all of it in the next round that may."""
        self._want_all = True

    def due_mono(self) -> float:
        """When a round should come for the strategy's sake."""
        return self._read_mono + AT_MOST_EVERY_S if self._want_all else self._compare_mono

    def add_to(self, round_: Round, now: float) -> None:
        """The commands that are due."""
        if self._want_all and now >= self._read_mono + AT_MOST_EVERY_S:
            self._want_all = False
            self._read_mono = now
            self.reads += 1
            command, taker = ("HGETALL", self._keys("strategy")), self._take_all
        elif now >= self._compare_mono:
            command, taker = ("HGET", self._keys("strategy"), HEAD_FIELD), self._take_head
        else:
            return
        self._compare_mono = now + COMPARE_S * random.uniform(0.8, 1.2)
        self._leader_until_ms = None  # unless the answer says otherwise
        round_.add("HGET", self._keys("leader"), "until_ms", to=self._take_lease)
        round_.add(*command, to=taker)

    def _take_lease(self, answer: Answer) -> None:
        self._leader_until_ms = int(answer) if answer else None

    def _take_head(self, answer: Answer) -> None:
        book = self._core.book
        applied = book.head_read(cast("bytes | None", answer), self._known_ms())
        if applied is Applied.CHANGED or (applied is Applied.SAME and book.refused):
            self.want_all()  # newer, or what was refused may be good by now
        self._apply(Applied.SAME if applied is Applied.CHANGED else applied)

    def _take_all(self, answer: Answer) -> None:
        flat = cast("list[bytes]", answer)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        self._apply(self._core.book.read_all(fields, self._known_ms()))

    def _apply(self, applied: Applied) -> None:
        core = self._core
        confirmed = None
        if applied not in _BAD and self._leader_until_ms is not None:
            confirmed = min(core.clock(), core.redis_clock.mono_of(self._leader_until_ms))
        changed, self._last = applied is not self._last, applied
        if applied is Applied.EMPTY and not core.book.head.epoch:
            if changed:
                _log.info("no supervisor has written a strategy yet", action="link.strategy.none")
        elif changed and applied in _BAD:
            _log.warning(
                "strategy not taken", action=f"link.strategy.{applied.value}", head=str(core.book.head)
            )
        if applied is Applied.CHANGED:
            _log.info("strategy applied", action="link.strategy.applied", head=str(core.book.head))
        core.strategy(applied, confirmed)

    def _known_ms(self) -> int | None:
        clock = self._core.redis_clock
        return clock.now_ms(self._core.clock()) if clock.known else None
