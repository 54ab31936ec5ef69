"""The retry budget of one container and target, as in gRPC's retry throttling (gRFC A6).

Rule: 10 tokens at most; a success gives `ratio` back, a fault takes one; a retry is allowed only above half.
So a target that fails more than one request in ten loses its retries before they make an outage worse.
The floor lets through `floor_per_min` retries a minute even then; it is the fleet's total divided by the live
workers, so that a small fleet still finds out that a target is back.

Pure: monotonic seconds come in as arguments.
"""

from __future__ import annotations

from typing import Final

CAP: Final = 10.0
HALF: Final = CAP / 2
DEFAULT_RATIO: Final = 0.1


class RetryBudget:
    """Tokens of one target in one container; starts full."""

    __slots__ = ("floor_at_mono", "tokens")

    def __init__(self) -> None:
        self.tokens = CAP
        self.floor_at_mono = 0.0  # from when the floor gives its next retry

    def success(self, ratio: float = DEFAULT_RATIO) -> None:
        """A request came to a good end."""
        if self.tokens < CAP:  # full is the usual case and costs one comparison
            self.tokens = min(CAP, self.tokens + ratio)

    def fault(self, now_mono: float, floor_per_min: float = 0.0) -> None:
        """A request ended badly. At or below half it may have been the floor's retry: that is spent too."""
        if self.tokens <= HALF and floor_per_min > 0.0:
            self.floor_at_mono = now_mono + 60.0 / floor_per_min
        self.tokens = self.tokens - 1.0 if self.tokens > 1.0 else 0.0

    def allowed(self, now_mono: float, floor_per_min: float = 0.0) -> bool:
        """Whether a retry may be made now."""
        return self.tokens > HALF or (floor_per_min > 0.0 and now_mono >= self.floor_at_mono)
