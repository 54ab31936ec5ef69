"""Clocks of a guarded call: the silence between outputs, and how many hedges a process may afford."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


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
