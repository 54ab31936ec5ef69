"""How this process logs: one JSON object a line, or for people in a terminal; to stderr."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from supervisor.settings import LogFormat

if TYPE_CHECKING:
    from supervisor.settings import SupervisorSettings

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logs(settings: SupervisorSettings) -> None:
    """Set up structlog once, and keep the libraries' own lines to what is wrong."""
    level = _LEVELS[settings.log_level.value]
    console = settings.log_format is LogFormat.CONSOLE or (
        settings.log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # An exception's text may hold a URL with a password: frames and types are kept, texts are not.
    processors.append(_exception_type)
    if console:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        processors.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, force=True)


def _exception_type(_logger: object, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    exc = event.pop("exc_info", None)
    if isinstance(exc, BaseException):
        event["exception"] = type(exc).__name__
        where = exc.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        if where is not None:
            event["at"] = f"{where.tb_frame.f_code.co_qualname}:{where.tb_lineno}"
    return event
