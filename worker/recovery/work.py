"""What the agent is at while a caller waits: since when there has been something to wait for. Pure: monotonic seconds
come in.

A wait that is due to a tool, a hand-off or a look-up before the reply says nothing about the services that come after
it: they get the time they would have had without.
"""

from __future__ import annotations

from typing import Any, Final

# A reply that begins so soon after the caller's last word had nothing before it but livekit's own pause.
_BEGINS_WITHIN_S: Final = 1.0


class Work:
    """One session's."""

    def __init__(self) -> None:
        self._tools: set[str] = set()
        self._free_mono = self._reply_mono = 0.0

    @property
    def tool_runs(self) -> bool:
        """Whether a tool is being run that the reply waits for."""
        return bool(self._tools)

    def tool(self, update: Any, now_mono: float) -> None:
        """livekit's update of a tool call. After its first word from inside a tool runs beside the talk."""
        if update.type == "tool_call_started":
            self._tools.add(update.function_call.call_id)
        elif update.type in ("tool_call_updated", "tool_call_ended") and update.call_id in self._tools:
            self._tools.discard(update.call_id)
            self._free_mono = now_mono

    def handed_over(self, now_mono: float) -> None:
        """Another agent has taken over."""
        self._free_mono = now_mono

    def reply_began(self, now_mono: float) -> None:
        """A reply was made, maybe late."""
        self._reply_mono = now_mono

    def since(self, waiting_since_mono: float) -> float:
        """From when on a caller who waits since then may expect a sound."""
        return max(waiting_since_mono, self._free_mono, self._reply_mono - _BEGINS_WITHIN_S)
