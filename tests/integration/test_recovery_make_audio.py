"""`worker make-audio` as a user runs it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worker.cli import app
from worker.recovery.phrases import shipped
from worker.simulator import SimulatorServer

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GROQ_API_KEY", "CARTESIA_API_KEY", "OPENAI_API_KEY", "WORKER_SIMULATOR_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKER_AUDIO_CACHE_DIR", str(tmp_path / "cache"))


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app.app, ["make-audio", *args])
    return result.exit_code, result.output


def answer(*args: str) -> tuple[int, Any]:
    code, output = run(*args, "--json")
    return code, json.loads(output)


@espeak
@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3", "flac"])
def test_a_file_with_espeak_that_can_be_played(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"sorry.{suffix}"
    code, output = run("--text=--version is no option here", "--out", str(file))
    assert code == 0, output
    assert "espeak-ng" in output
    code, made = answer("--check", str(file))
    assert (code, made["ok"]) == (0, True)
    assert 0.5 < made["items"][0]["seconds"] < 5


@espeak
def test_messages_of_a_language(tmp_path: Path) -> None:
    code, made = answer("--language", "de", "--out", str(tmp_path / "x.wav"))
    assert (code, made["items"][0]["text"]) == (0, shipped("de")["tts"][0])


@espeak
def test_messages_of_a_language_that_is_not_shipped_are_spoken_as_what_they_are(tmp_path: Path) -> None:
    _, english = answer("--language", "en", "--out", str(tmp_path / "en.wav"))
    code, made = answer("--language", "sv", "--out", str(tmp_path / "sv.wav"))
    assert (code, made["items"][0]["text"]) == (0, english["items"][0]["text"])
    assert (tmp_path / "sv.wav").read_bytes() == (tmp_path / "en.wav").read_bytes()


def test_files_that_cannot_be_played(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    code, said = answer("--check", str(tmp_path / "empty.wav"), "--check", str(tmp_path / "none.ogg"))
    assert (code, said["ok"]) == (1, False)
    assert ["is empty" in said["items"][0]["detail"], "no such file" in said["items"][1]["detail"]] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--engine", "pigeon"], 2, "must be one of"),
        (["--engine", "tts"], 1, "API_KEY"),
        (["--text", "  ", "--out", "sorry.wav"], 2, "--text: holds no words"),
        pytest.param([], 1, "give --out FILE", marks=espeak),
        pytest.param([], 1, "GROQ_API_KEY (or OPENAI_API_KEY) must be set", marks=espeak),
        pytest.param(["--text", "x", "--out", "sorry.doc"], 1, "must be one of .wav", marks=espeak),
        pytest.param(
            ["--text", "x", "--out", "/nonexistent/sorry.wav"], 1, "cannot be written", marks=espeak
        ),
        pytest.param(
            ["--language", "xx-unknown", "--text", "x", "--out", "x.wav"], 1, "does not speak", marks=espeak
        ),
    ],
)
def test_what_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, output = run(*args)
    assert got == code
    assert says in output
    assert len(output.strip().splitlines()[-1]) < 200
    got, answered = answer(*args)
    assert (got, answered["ok"]) == (code, False)


@pytest.fixture
def stand_in() -> Iterator[str]:
    """A stand-in in a thread: the command runs an event loop of its own."""
    import asyncio

    ready, stop, url = threading.Event(), threading.Event(), list[str]()

    async def serve() -> None:
        async with SimulatorServer() as sim:
            url.append(sim.url)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield url[0]
    stop.set()
    thread.join(10)


def test_the_configured_voice_fills_the_cache(monkeypatch: pytest.MonkeyPatch, stand_in: str) -> None:
    monkeypatch.setenv("WORKER_SIMULATOR_URL", stand_in)
    code, made = answer()
    assert code == 0, made
    assert [item["text"] for item in made["items"]] == [*shipped("en")["tts"], *shipped("en")["final"]]
    assert {item["voice"] for item in made["items"]} == {"tts:cartesia:sonic-3"}
    code, kept = answer("--list")
    assert {entry["text"] for entry in kept["items"]} == {item["text"] for item in made["items"]}
    assert all(Path(item["path"]).exists() for item in made["items"])
    assert run("--list")[1].count("cartesia:sonic-3") == len(kept["items"])


def test_a_cache_that_cannot_be_written_is_one_answer(
    monkeypatch: pytest.MonkeyPatch, stand_in: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKER_SIMULATOR_URL", stand_in)
    monkeypatch.setenv("WORKER_AUDIO_CACHE_DIR", str(tmp_path / "file" / "cache"))
    code, made = answer("--text", "Sorry.")
    assert (code, made["ok"]) == (1, False)
    assert made["detail"].endswith("cannot be written; set WORKER_AUDIO_CACHE_DIR")
