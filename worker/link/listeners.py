"""Who wants to be told of new rules."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from worker.link.api import Rules, RulesListener

_log = structlog.get_logger("worker.link")


class Listeners:
    """Called one after the other in the order they came; what one raises is its own matter."""

    __slots__ = ("_listeners", "_number")

    def __init__(self) -> None:
        self._listeners: dict[int, RulesListener] = {}
        self._number = 0

    def add(self, listener: RulesListener) -> Callable[[], None]:
        """Returns the way to stop; stopping twice is harmless."""
        self._number += 1
        number = self._number
        self._listeners[number] = listener

        def stop() -> None:
            self._listeners.pop(number, None)

        return stop

    def tell(self, rules: Rules) -> None:
        for listener in tuple(self._listeners.values()):
            try:
                listener(rules)
            except Exception as exc:  # noqa: BLE001 - a listener of the user's must not stop the link
                _log.error("rules listener failed", action="link.listener.failed", error=type(exc).__name__)
