"""Listeners that cannot end what they listen to."""

from __future__ import annotations

from typing import Any, cast

import structlog

log = structlog.stdlib.get_logger("worker.guard")


class HarmlessListeners:
    """Goes before a livekit plugin class: a listener's TypeError is logged instead of raised.

    livekit's `emit` catches every exception of a listener but that one, and a recogniser or a voice that emits from
    its own loop would end with it.
    """

    def emit(self, event: Any, *args: Any) -> None:
        """As `EventEmitter.emit`; raises nothing."""
        try:
            cast("Any", super()).emit(event, *args)
        except TypeError:
            # No text of it: a listener's own words may be a caller's.
            log.error("a listener failed", action="guard.listener_failed", event_name=str(event)[:64])
