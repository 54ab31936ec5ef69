"""Clocks of a guarded call: silence between outputs, a turn's latency budget, and how many hedges may be afforded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

FRESH_S: Final = 5.0
"""An answer that began longer ago is not the one that a voice begins to speak."""


class Stall:
    """Calls `on_stall` once when `touch` was not called for `stall_s()` seconds. One timer, re-armed lazily.

    alive: asked before it fires; True (something moves that `touch` does not see) gives as much again.
    """

    __slots__ = ("_alive", "_handle", "_loop", "_on_stall", "_stall_s", "_touched", "fired")

    def __init__(
        self,
        stall_s: Callable[[], float],
        on_stall: Callable[[], None],
        *,
        alive: Callable[[], bool] | None = None,
    ) -> None:
        self._alive = alive
        self._loop = asyncio.get_running_loop()
        self._stall_s = stall_s
        self._on_stall = on_stall
        self._touched = self._loop.time()
        self.fired = False
        self._handle: asyncio.TimerHandle | None = self._loop.call_later(stall_s(), self._look)

    def touch(self) -> None:
        """Something came."""
        self._touched = self._loop.time()

    def stop(self) -> None:
        """No longer needed; harmless when it has fired."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        left = self._touched + self._stall_s() - self._loop.time()
        if left <= 0.0005 and self._alive is not None and self._alive():
            left = self._stall_s()
        if left > 0.0005:
            self._handle = self._loop.call_later(left, self._look)
            return
        self._handle = None
        self.fired = True
        self._on_stall()


@dataclass(slots=True)
class TurnClock:
    """One latency budget for a turn: its voice goes on with what its model has left of it.

    Share one between the guards of a session. All times are monotonic, in seconds.
    """

    _asked_mono: float = 0.0
    _answered_mono: float = field(default=float("-inf"))

    def answered(self, asked_mono: float, now_mono: float) -> None:
        """A model that was asked then begins to answer now."""
        self._asked_mono, self._answered_mono = asked_mono, now_mono

    def began(self, now_mono: float) -> float:
        """Since when the caller of a voice's first words has waited: since the model was asked, or since now."""
        fresh = now_mono - self._answered_mono <= FRESH_S
        self._answered_mono = float("-inf")  # the next words are another turn's
        return self._asked_mono if fresh else now_mono


@dataclass(slots=True)
class HedgeBudget:
    """One hedge per `every_s` in the process, at most `share` of all attempts over time, one to begin with.

    Share one among all guards of a process; `attempt()` is called for every attempt that is no hedge.
    """

    every_s: float = 10.0
    share: float = 0.05
    _credit: float = 1.0
    _last_mono: float = field(default=float("-inf"))

    def attempt(self) -> None:
        """An ordinary attempt began."""
        self._credit = min(self._credit + self.share, 10.0)

    def take(self, now_mono: float) -> bool:
        """Whether a hedge may start now; if so it is spent."""
        if self._credit < 1.0 or now_mono - self._last_mono < self.every_s:
            return False
        self._credit -= 1.0
        self._last_mono = now_mono
        return True
