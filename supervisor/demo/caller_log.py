"""Reads what the callers write down: one line of JSON an event (see worker.runtime.rehearsal)."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.demo.drill_stats import quantile

_KEPT = 20_000  # turns remembered: eight callers for half a day


@dataclass(slots=True)
class CallerLog:
    """Follows a growing file; `read()` takes in what is new. A half-written last line waits for its rest."""

    path: Path
    doing: dict[str, str] = field(default_factory=dict[str, str])
    turns: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    unreadable: int = 0
    _offset: int = 0

    def read(self) -> None:
        """Take in the lines that came since the last time."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole, newline, _ = data.rpartition(b"\n")
        if not newline:
            return
        self._offset += len(whole) + 1
        for line in whole.splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            if event["event"] == "turn":
                self.turns.append(event)
            elif event["event"] == "state":
                self.doing[str(event["caller"])] = str(event["state"])
                if event["state"] == "gone":
                    self.doing.pop(str(event["caller"]))
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1

    def summary(self) -> dict[str, Any]:
        """turns, silent ones, and the dead air from the end of a caller's speech to the first sound, in seconds."""
        air = [float(t["dead_air_s"]) for t in self.turns if t.get("dead_air_s") is not None]
        return {
            "turns": len(self.turns),
            "silent": sum(bool(t["silent"]) for t in self.turns),
            "dead_air_s": {
                "p50": _rounded(quantile(air, 0.5)),
                "p95": _rounded(quantile(air, 0.95)),
                "max": _rounded(max(air, default=None)),
            },
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
