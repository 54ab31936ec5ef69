"""The leader's one clock: Redis TIME, made never-decreasing. Pure: times come in as arguments."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

# Below this a step back is an NTP correction: time stands still for that long, and nobody notices.
BACK_MS = 1_000
# Above this TIME and our own clock disagree: a failover, or this machine slept.
JUMP_MS = 5_000
# Reports older than 2 s are history: a pause that long has cost evidence.
PAUSE_S = 2.0


class ClockGap(StrEnum):
    """Why reports may be missing."""

    TIME_BACK = "time_back"
    TIME_JUMP = "time_jump"
    PAUSED = "paused"


class Moment(NamedTuple):
    """now_ms: the engine's time. redis_ms: TIME as read. gap: why reports may be missing, if they may."""

    now_ms: int
    redis_ms: int
    gap: ClockGap | None


class LeaderClock:
    """Turns readings of TIME into the engine's `now`.

    When TIME falls back for good (a failover to a server whose clock is behind), `now` goes on from where it
    was, at TIME's pace: windows keep sliding.
    """

    __slots__ = ("_last_mono", "_last_redis_ms", "_offset_ms", "now_ms")

    def __init__(self, last_now_ms: int = 0) -> None:
        """last_now_ms: the time at which the state was saved that this leader begins with."""
        self.now_ms = last_now_ms
        self._offset_ms = 0
        self._last_redis_ms = 0
        self._last_mono = 0.0

    @property
    def offset_ms(self) -> int:
        """How far `now` is ahead of TIME (0, but after a fall back of TIME)."""
        return self._offset_ms

    def read(self, redis_ms: int, mono_s: float) -> Moment:
        """The moment of a reading of TIME that was made at `mono_s` (CLOCK_MONOTONIC, seconds)."""
        gap: ClockGap | None = None
        if self._last_redis_ms == 0:
            behind = self.now_ms - redis_ms
            if behind > BACK_MS:
                self._offset_ms, gap = behind, ClockGap.TIME_BACK
        else:
            passed_s = mono_s - self._last_mono
            drift_ms = redis_ms - self._last_redis_ms - int(passed_s * 1000)
            if drift_ms < -BACK_MS:
                self._offset_ms -= drift_ms
                gap = ClockGap.TIME_BACK
            elif drift_ms > JUMP_MS:
                # Going on at the old pace would keep deadlines that are over; so time jumps, and says so.
                gap = ClockGap.TIME_JUMP
                self._offset_ms = max(0, self._offset_ms - drift_ms)
            elif passed_s > PAUSE_S:
                gap = ClockGap.PAUSED
        self._last_redis_ms, self._last_mono = redis_ms, mono_s
        self.now_ms = max(self.now_ms, redis_ms + self._offset_ms)
        return Moment(self.now_ms, redis_ms, gap)

    def to_redis(self, now_ms: int) -> int:
        """A time of the engine's as Redis TIME, which is what workers compare with (0 stays 0)."""
        return max(0, now_ms - self._offset_ms) if now_ms else 0
