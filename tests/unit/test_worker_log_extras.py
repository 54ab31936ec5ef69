"""livekit's log lines in ours: why something failed goes out, what callers said does not."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from worker.logs import configure_logs
from worker.settings import read_settings


class Refused(Exception):
    """As aiohttp's: its text holds headers."""

    status = 401


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_attempt_that_failed_says_why_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(read_settings(log_format="json"))
    extra = {"retry_count": 2, "max_retry": 16, "error": Refused("Bearer secret")}
    logging.getLogger("livekit.agents").warning("failed to connect", extra=extra)
    line = json.loads(capsys.readouterr().err)
    assert {key: line[key] for key in ("event", "retry_count", "max_retry", "error", "status")} == {
        "event": "failed to connect",
        "retry_count": 2,
        "max_retry": 16,
        "error": "Refused",
        "status": 401,
    }
    assert "secret" not in json.dumps(line)


def test_words_of_callers_stay_inside(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(read_settings(log_format="json"))
    extra = {"user_transcript": "my number is 12", "room": "+4912", "job_id": "job-1"}
    logging.getLogger("livekit.agents").info("received user transcript", extra=extra)
    line = json.loads(capsys.readouterr().err)
    assert line["job_id"] == "job-1"
    assert "12" not in json.dumps(line | {"timestamp": ""})


def test_a_warning_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(read_settings(log_format="json"))
    warnings.simplefilter("always")
    warnings.warn("the secret is short", UserWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "the secret is short" in json.loads(lines[0])["event"]


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_no_line_for_every_request(capsys: pytest.CaptureFixture[str], name: str) -> None:
    configure_logs(read_settings(log_format="json"))
    logging.getLogger(name).info("HTTP Request: POST https://…")
    assert capsys.readouterr().err == ""
