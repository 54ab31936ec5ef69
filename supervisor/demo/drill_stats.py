"""From turn records to the drill's numbers. Pure: lists of plain values in, one dictionary out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TurnLine = Mapping[str, Any]
"""One line of a record file, as `worker.drill.records.TurnRecord` writes it."""


@dataclass(frozen=True, slots=True)
class Outage:
    """When the primary was broken, wall time in ms: [from_ms, to_ms)."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the supervisor said, seconds after the outage began / ended (None: it never did)."""

    verdict_s: float | None = None
    recovery_s: float | None = None


def quantile(values: Sequence[float], q: float) -> float | None:
    """The q-quantile by linear interpolation between order statistics (numpy's default), None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summarise(
    variant: str, turns: Sequence[TurnLine], outage: Outage, dead_requests: int, verdicts: Verdicts
) -> dict[str, Any]:
    """One row of the drill: turns that began in the outage, judged against the healthy ones before it.

    extra_wait_s: time to the first word (or, when none came, until the turn was over) minus the variant's own
    healthy median. closed: sessions that ended themselves. healthy_p50_s is what the extra wait is against.
    """
    healthy = [float(t["first_s"]) for t in turns if t["at_ms"] < outage.from_ms and t["first_s"] is not None]
    median = quantile(healthy, 0.5)
    during = [t for t in turns if outage.from_ms <= t["at_ms"] < outage.to_ms]
    extra = [max(0.0, _wait(t) - (median or 0.0)) for t in during]
    return {
        "variant": variant,
        "turns": len(during),
        "silent": sum(t["first_s"] is None for t in during),
        "cut": sum(0 < t["got"] < t["expected"] for t in during),
        "repeated": sum(t["twice"] > 0 for t in during),
        "extra_wait_s": {
            name: _round(quantile(extra, q)) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "dead_requests": dead_requests,
        "closed": len({t["session"] for t in turns if t["closed"]}),
        "verdict_s": _round(verdicts.verdict_s),
        "recovery_s": _round(verdicts.recovery_s),
        "healthy_turns": len(healthy),
        "healthy_p50_s": _round(median),
    }


def _wait(turn: TurnLine) -> float:
    return float(turn["total_s"] if turn["first_s"] is None else turn["first_s"])


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
