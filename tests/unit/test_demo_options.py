"""What the drill does not take it says before it starts anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from supervisor.cli.app import app


def refused(*args: str) -> str:
    result = CliRunner().invoke(app, ["drill", *args], env={"NO_COLOR": "1", "COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--fault", "cut"], "--fault: needs --audio"),
        (["--role", "tts"], "--role: needs --audio"),
        (["--rounds", "2"], "--rounds: needs --audio"),
        (["--report", "drill.html"], "--report: needs --audio"),
        (["--audio", "--scenario", "hang"], "--scenario: is of the text drill"),
        (["--audio", "--outage", "0s"], "--outage: must be at least 1s"),
        (["--audio", "--role", "llm", "--fault", "silent"], "no role has that fault"),
        (["--audio", "--sessions", "3"], "greater than or equal to 4"),
    ],
)
def test_options_that_do_not_go_together(args: list[str], says: str) -> None:
    assert says in refused(*args)


def test_a_report_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one = ("--audio", "--role", "tts", "--fault", "cut", "--report")
    assert "there is no folder nowhere" in refused(*one, "nowhere/drill.html")
    Path("page").mkdir()
    assert "page is a folder; name a file" in refused(*one, "page")
    if os.geteuid():  # root may write anywhere
        Path("page").chmod(0o500)
        assert "cannot be written" in refused(*one, "page/drill.html")
