"""What the command line understands, and what it says when it does not."""

from __future__ import annotations

import pytest
import typer

from supervisor.cli import output
from supervisor.cli.client import base_url, parse_events
from supervisor.cli.errors import CliError
from supervisor.cli.output import counted, plain
from supervisor.cli.values import parse_duration, parse_value, scope_path, target_segment, whole_seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("500ms", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "1 y", "1e3", "nan", "inf"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_a_ttl_is_at_least_a_second() -> None:
    assert whole_seconds("10m") == 600
    with pytest.raises(typer.BadParameter):
        whole_seconds("100ms")


def test_policy_values() -> None:
    assert parse_value("run_base=6") == ("run_base", 6)
    assert parse_value("rate_bound=0.5") == ("rate_bound", 0.5)
    assert parse_value("hedge=true") == ("hedge", True)
    for wrong in ("run_base", "=6", "a b=6", "run_base=six", "run_base="):
        with pytest.raises(typer.BadParameter):
            parse_value(wrong)


def test_paths_of_targets_and_scopes() -> None:
    assert target_segment("tts:groq:canopylabs/orpheus~v1") == "tts:groq:canopylabs~1orpheus~0v1"
    assert target_segment("llm:groq:a b?c#d") == "llm:groq:a%20b%3Fc%23d"
    assert scope_path("provider:groq") == "/v1/providers/groq/override"
    assert scope_path("llm:groq:x") == "/v1/targets/llm:groq:x/override"
    for wrong in ("groq", "provider:", "llm:groq"):
        with pytest.raises(typer.BadParameter):
            scope_path(wrong)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPERVISOR_PORT", raising=False)
    assert base_url("") == "http://127.0.0.1:8080"
    monkeypatch.setenv("SUPERVISOR_PORT", "9999")
    assert base_url("") == "http://127.0.0.1:9999"
    assert base_url("https://host/x/") == "https://host/x"
    with pytest.raises(CliError) as caught:
        base_url("host:8080")
    assert caught.value.code == 2


def test_event_lines() -> None:
    lines = [
        "retry: 2000",
        "id: 1-0_0-0",
        "",
        ": heartbeat",
        "id: 2-0_0-0",
        "event: verdict",
        'data: {"a":',
        "data: 1}",
        "",
        "id: 3-0_0-0",
        "",
    ]
    assert list(parse_events(iter(lines))) == [
        ("1-0_0-0", "", None),
        ("2-0_0-0", "verdict", {"a": 1}),
        ("3-0_0-0", "", None),
    ]


def test_values_are_shown_without_the_marks_of_a_programming_language() -> None:
    values: list[object] = [None, "", [], {}, True, False, 0, 0.5]
    assert [plain(v) for v in values] == [
        "-",
        "-",
        "-",
        "-",
        "yes",
        "no",
        "0",
        "0.5",
    ]
    assert plain(["a", "b"]) == "a, b"
    assert plain({"server": 3, "kinds": ["x"]}) == "server 3, kinds x"
    assert [counted(n, "worker") for n in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]


def test_what_a_provider_said_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = "503 \x1b]0;owned\x07\x1b[2Jgone\r\n"
    output.print_table(("message",), [(said,)], "")
    output.say(said)
    output.complain(said)
    printed = capsys.readouterr()
    assert "owned" in printed.out
    assert not {"\x1b", "\x07", "\r"} & set(printed.out + printed.err)
