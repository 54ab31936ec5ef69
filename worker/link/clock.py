"""Redis TIME as seen from this process: an offset to CLOCK_MONOTONIC, measured on the link's own connection.

Rule: this host's wall clock decides nothing; a wrong or jumping one moves no deadline.
"""

from __future__ import annotations

from typing import Final

_BEST_FOR_S: Final = 60.0  # drift of two quartz clocks within this is below 6 ms
_JUMP_MS: Final = 250.0  # beyond this it is not jitter: another server, or its clock was set


class RedisClock:
    """`offset_ms`: Redis TIME minus CLOCK_MONOTONIC, both in milliseconds; None before a measurement.

    `fallback_offset_ms` stands in until then (the host's wall clock), for records alone.
    """

    __slots__ = ("_fallback_ms", "_measured_mono", "_rtt_ms", "offset_ms")

    def __init__(self, fallback_offset_ms: float) -> None:
        self._fallback_ms = fallback_offset_ms
        self.offset_ms: float | None = None
        self._rtt_ms = 0.0
        self._measured_mono = 0.0

    def measured(self, redis_ms: float, sent_mono: float, received_mono: float) -> bool:
        """Take in one answer to TIME. True when Redis TIME is no longer what it seemed (jumped, failed over).

        The sample with the shortest round trip of the last minute is kept: its error is half that at most.
        """
        rtt_ms = max(0.0, (received_mono - sent_mono) * 1000)
        offset = redis_ms - (sent_mono + received_mono) * 500
        known = self.offset_ms
        jumped = known is not None and abs(offset - known) > _JUMP_MS + rtt_ms
        aged = received_mono - self._measured_mono > _BEST_FOR_S
        if known is None or jumped or aged or rtt_ms <= self._rtt_ms:
            self.offset_ms, self._rtt_ms, self._measured_mono = offset, rtt_ms, received_mono
        return jumped

    @property
    def known(self) -> bool:
        return self.offset_ms is not None

    def now_ms(self, now_mono: float) -> int:
        """Redis TIME at a moment, as well as it is known."""
        offset = self._fallback_ms if self.offset_ms is None else self.offset_ms
        return int(now_mono * 1000 + offset)

    def mono_of(self, at_ms: int) -> float:
        """The CLOCK_MONOTONIC moment of a Redis time."""
        offset = self._fallback_ms if self.offset_ms is None else self.offset_ms
        return (at_ms - offset) / 1000
