"""What livekit's own records become before they leave the worker: no key, no caller's words, one line."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from livekit.agents.ipc.log_queue import LogQueueHandler

from worker.logs import configure_logs
from worker.settings import WorkerSettings

SECRET = "gsk_neverShowThis0123456789abcdef"
WORDS = "my card number is a secret"

logger = logging.getLogger("livekit.agents")


@pytest.fixture
def worker_logs() -> Iterator[None]:
    """The container's logging, put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def configure(level: str = "info") -> None:
    configure_logs(WorkerSettings(log_format="json", log_level=level))  # pyright: ignore[reportCallIssue]  # the rest has defaults


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


class _Wire:
    """Where a job process puts its pickled records."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None: ...


def from_a_job(text: str, *, raised: Exception | None = None) -> logging.LogRecord:
    """A record as livekit hands it from a job process to the container's."""
    wire = _Wire()
    handler = LogQueueHandler(wire)  # pyright: ignore[reportArgumentType]  # the two methods that it uses
    info = None
    if raised is not None:
        try:
            raise raised  # noqa: TRY301  # a traceback is wanted
        except Exception:  # noqa: BLE001  # whatever the test gave
            info = sys.exc_info()
    handler.emit(logging.LogRecord("livekit.agents", logging.ERROR, __file__, 1, text, None, info))
    handler.close()
    handler.thread.join()
    return pickle.loads(wire.sent[0])  # noqa: S301  # made here


@pytest.mark.usefixtures("worker_logs")
def test_a_providers_words_in_a_record_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logger.warning("provider said: key %s is wrong, heard '%s'", SECRET, WORDS, extra={"user_input": WORDS})
    (line,) = lines(capsys)
    assert SECRET not in str(line)
    assert WORDS not in str(line)
    assert line["event"].startswith("provider said: key [key] is wrong")


@pytest.mark.usefixtures("worker_logs")
def test_an_exception_is_its_type_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    try:
        raise ValueError(WORDS)  # noqa: TRY301  # a traceback is wanted
    except ValueError:
        logger.exception("it broke")
    (line,) = lines(capsys)
    assert line["exception"] == "ValueError"
    assert line["at"].startswith("test_worker_logs.py:")
    assert WORDS not in str(line)


@pytest.mark.usefixtures("worker_logs")
def test_a_traceback_from_a_job_process_is_its_type_and_place(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    record = from_a_job("unhandled exception", raised=LookupError(f"{WORDS}\nSecret: {SECRET}"))
    assert WORDS in record.getMessage(), "livekit formats the traceback into the message"
    logging.getLogger(record.name).callHandlers(record)
    (line,) = lines(capsys)
    assert line["event"] == "unhandled exception"
    assert line["exception"] == "LookupError"
    assert line["at"].startswith("test_worker_logs.py:")
    assert WORDS not in str(line)
    assert SECRET not in str(line)


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "🚨 é"), ("ascii", "\\ud83d\\udea8 \\u00e9")])
def test_a_line_is_one_write_and_keeps_its_signs(encoding: str, sign: str) -> None:
    # Container and job processes share stderr, unbuffered in the image: what is written in two parts is torn.
    code = """
import os, sys, structlog
from worker.logs import configure_logs
from worker.settings import WorkerSettings
configure_logs(WorkerSettings(log_format="json"))
parts = []
sys.stderr.buffer.write = lambda data: parts.append(bytes(data)) or len(data)
structlog.get_logger().info("\U0001f6a8 \u00e9")
print(len(parts), parts[0].decode(), end="")
"""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": encoding}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True, env=env
    )
    parts, _, line = ran.stdout.partition(" ")
    assert (parts, line[-1]) == ("1", "\n")
    assert sign in line
    assert json.loads(line)["event"] == "🚨 é"


@pytest.mark.usefixtures("worker_logs")
def test_whole_requests_are_not_logged_even_for_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    configure("debug")
    logging.getLogger("openai._base_client").debug("Request options: %s", {"messages": ["hello"]})
    assert lines(capsys) == []
