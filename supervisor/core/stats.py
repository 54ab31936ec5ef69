"""The little statistics the engine needs. Pure functions of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from zlib import crc32

from supervisor.wire.vocabulary import HISTOGRAM_BOUNDS_MS


def wilson_lower(faults: int, finished: int, z: float = 1.96) -> float:
    """Lower bound of the Wilson score interval for a fault rate; 0.0 when nothing finished.

    Wilson, E. B. (1927), Probable inference, the law of succession, and statistical inference, JASA 22:209-212.
    With few outcomes it stays far below the plain rate: 3 faults of 3 give 0.44, not 1.0.
    """
    if finished <= 0:
        return 0.0
    p = min(1.0, faults / finished)
    zz = z * z
    centre = p + zz / (2 * finished)
    spread = z * sqrt((p * (1.0 - p) + zz / (4 * finished)) / finished)
    return max(0.0, (centre - spread) / (1.0 + zz / finished))


def quantile_ms(histogram: Sequence[float], q: float) -> int:
    """The q-quantile (0..1) of a first-output histogram in ms, linear within its bucket; 0 when it is empty."""
    total = sum(histogram)
    if total <= 0:
        return 0
    want = q * total
    seen = 0.0
    for index, count in enumerate(histogram):
        if count and seen + count >= want:
            if index >= len(HISTOGRAM_BOUNDS_MS):
                return HISTOGRAM_BOUNDS_MS[-1]
            low = HISTOGRAM_BOUNDS_MS[index - 1] if index else 0
            return round(low + (HISTOGRAM_BOUNDS_MS[index] - low) * (want - seen) / count)
        seen += count
    return HISTOGRAM_BOUNDS_MS[-1]


def jittered(base_ms: int, share: float, name: str, n: int) -> int:
    """`base_ms` plus or minus `share` of it, by the hash of (name, n): spread out, yet the same every time."""
    place = crc32(f"{name}\0{n}".encode("utf-8", "surrogatepass")) / 0xFFFFFFFF
    return round(base_ms * (1.0 + share * (2.0 * place - 1.0)))
