"""Logs of a worker: structlog for ours, livekit's own records through the same lines.

Rule: livekit and the SDKs put into their lines what a provider said, exceptions with their texts, and so maybe keys
or a caller's words: a line of theirs goes out redacted, an exception as its type and the place it was raised at.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from pathlib import PurePath
from typing import Any, Final, cast

import structlog

from worker.guard.redact import redact
from worker.settings import WorkerSettings

# What livekit puts beside its lines and may go out; transcripts and the names of rooms and callers may not.
_EXTRAS = ("retry_count", "max_retry", "pid", "job_id")
# The openai package brings a fork of httpx with it; its own debug lines hold whole requests.
_NOISY = ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp.access", "asyncio")
# A job process formats its records before it sends them: the traceback is a part of the message.
_TRACEBACK: Final = re.compile(r"\n(?:\s*[+|] )?(?:Exception Group )?Traceback \(most recent call last\):\n")
_FRAME: Final = re.compile(r'^[\s|]*File "([^"\n]+)", line (\d+), in ([\w<>]+)', re.MULTILINE)
_RAISED: Final = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.MULTILINE)


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
    # Where stderr takes every character signs and umlauts stay what they are: they are searched for.
    ascii_only = (sys.stderr.encoding or "").lower().replace("-", "") != "utf8"
    final: Any = (
        structlog.dev.ConsoleRenderer()
        if people
        else structlog.processors.JSONRenderer(ensure_ascii=ascii_only)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line is one write: processes share it
        cache_logger_on_first_use=True,
    )
    if job:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                _with_extras,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_exception_text,
                _redacted,
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
        frames = traceback.extract_tb(raised.__traceback__)
        if frames:
            event["at"] = _place(frames[-1].filename, frames[-1].lineno, frames[-1].name)
    return event


def _redacted(_: Any, __: str, event: Any) -> Any:
    text, *traces = _TRACEBACK.split(str(event.get("event", "")))
    if traces:  # the last one is of the exception that was raised in the end
        where = _FRAME.findall(traces[-1])
        raised = _RAISED.findall(traces[-1])
        if raised:
            event["exception"] = raised[0].rpartition(".")[2]  # further lines are of its text
        if where:
            event["at"] = _place(*where[-1])
    event["event"] = redact(text)
    return event


def _place(file: str, line: object, function: str) -> str:
    return f"{PurePath(file).name}:{line} in {function}"
