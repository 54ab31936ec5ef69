"""Logs of a worker: structlog for ours, livekit's own records through the same lines."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog

from worker.settings import WorkerSettings

# What livekit puts beside its lines and may go out; transcripts and the names of rooms and callers may not.
_EXTRAS = ("retry_count", "max_retry", "pid", "job_id")
# The openai package brings a fork of httpx with it.
_NOISY = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp.access", "asyncio")


def configure_logs(settings: WorkerSettings, *, job: bool = False) -> None:
    """Write to stderr: for people on a terminal (or `console`), one JSON object a line elsewhere (or `json`).

    job: in a job process livekit sends standard records to the container's process; they are left alone.
    """
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: Any = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if job:
        return
    handler = logging.StreamHandler(sys.stderr)
    # Upstream logs exceptions with their texts, which may hold what a caller said: the type alone goes out.
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                _with_extras,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_exception_text,
                final,
            ],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)  # one line of the same form, too
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _with_extras(_: Any, __: str, event: Any) -> Any:
    extras = cast("dict[str, object]", vars(event["_record"]))
    event |= {key: extras[key] for key in _EXTRAS if key in extras}
    error = extras.get("error")
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        if isinstance(status := getattr(error, "status", None), int):
            event["status"] = status  # 401: the key or the secret is wrong
    return event


def _without_exception_text(_: Any, __: str, event: Any) -> Any:
    info = event.pop("exc_info", None)
    raised: object = cast("tuple[object, ...]", info)[1] if isinstance(info, tuple) else info
    if isinstance(raised, BaseException):
        event["exception"] = type(raised).__name__
    return event
