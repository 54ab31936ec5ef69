"""Log lines: an event of few words with fields for machines; with WORKER_LOG_EMOJI a sign in front for people."""

from __future__ import annotations

from typing import Any, Final

import structlog

_SIGNS: Final = {
    "error": "🚨",
    "source": "🔍",
    "recoverable": "🔄",
    "count": "🔄",
    "attempt": "🔄",
    "delivered": "✅",
    "success": "✅",
    "stats": "📊",
    "total": "⚠️",
    "gave_up": "🛑",
    "watchdog": "🐕",
}


class Lines:
    """Writes the session's lines, with its id. Never a caller's words, never an exception's text."""

    def __init__(self, session: str, *, emoji: bool = False) -> None:
        self._log: Any = structlog.get_logger("worker.recovery").bind(session=session)
        self.emoji = emoji

    def info(self, sign: str, text: str, **fields: Any) -> None:
        """A line that is no alarm."""
        self._log.info(self._with(sign, text), action=f"recovery.{sign}", **fields)

    def warning(self, sign: str, text: str, **fields: Any) -> None:
        """A line that somebody should see."""
        self._log.warning(self._with(sign, text), action=f"recovery.{sign}", **fields)

    def _with(self, sign: str, text: str) -> str:
        return f"{_SIGNS[sign]} {text}" if self.emoji and sign in _SIGNS else text
