"""Whom to listen with: as the link says, but what has just failed in this call comes last for a while."""

from __future__ import annotations

from typing import Any, Final

from supervisor.core.admission import Route
from worker.guard.routing import Guard
from worker.guard.stt_ear import AnySTT

PENALTY_BASE_S: Final = 20.0
PENALTY_CAP_S: Final = 300.0
"""How long a recogniser that failed this call stays behind the others while no verdict says anything."""


class EarGuard(Guard[AnySTT]):
    """Routes as `Guard` does, but what has just failed in this call comes last for a while."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failures: dict[str, tuple[int, float]] = {}

    def picture(self) -> Route:
        route = super().picture()
        if not self._failures or route.panic:
            return route
        now = self.clock()
        behind = {target for target, (_, until) in self._failures.items() if now < until}
        return Route(tuple(sorted(route.targets, key=lambda target: target in behind)), route.panic)

    def failed(self, target: str) -> None:
        """It goes to the end of the route for a while, longer each time."""
        times = self._failures.get(target, (0, 0.0))[0] + 1
        pause = min(PENALTY_BASE_S * 2 ** min(times - 1, 8), PENALTY_CAP_S)
        self._failures[target] = (times, self.clock() + pause)

    def understood(self, target: str) -> None:
        """It works again."""
        self._failures.pop(target, None)
