"""`worker check` and `worker console`, as one calls them (`start` is in test_bad_input_settings)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from tests.support.redis_server import free_port
from worker.cli.app import app
from worker.simulator import Options, SimulatorServer

pytestmark = pytest.mark.timeout(60)

SECRET = "neverShowThisPassword0123"
OURS = ("WORKER_", "REDIS_", "LIVEKIT_", "GROQ_", "CARTESIA_", "OPENAI_", "DEEPGRAM_")


def run(*argv: str, **env: str) -> Result:
    """A command in this process, with nothing set but `env`."""
    clean: dict[str, str | None] = {k: None for k in os.environ if k.startswith(OURS)}
    return CliRunner().invoke(app, list(argv), env=clean | dict(env) | {"NO_COLOR": "1"})


def findings(result: Result) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Whether all is well, and the findings by name."""
    found = json.loads(result.stdout)
    return found["ok"], {item["name"]: item for item in found["items"]}


def test_check_says_that_all_is_well(redis_url: str, fleet: str) -> None:
    env = {"WORKER_SIMULATOR_URL": "http://127.0.0.1:9", "REDIS_URL": redis_url, "WORKER_FLEET": fleet}
    result = run("check", "--json", **env)
    assert result.exit_code == 0, result.output
    ok, found = findings(result)
    assert ok
    assert list(found) == ["settings", "agent", "redis", "providers"]
    assert found["redis"]["detail"] == f"answers; strategies for 0 targets in fleet {fleet}"


def test_check_names_what_is_wrong_and_no_password() -> None:
    env = {"REDIS_URL": f"redis://:{SECRET}@127.0.0.1:{free_port()}/0"}
    result = run("check", "--json", "--agent", "no_such_bot.main:entrypoint", **env)
    assert result.exit_code == 1, result.output
    ok, found = findings(result)
    assert not ok
    assert "there is no module 'no_such_bot'" in found["agent"]["detail"]
    assert "see REDIS_URL" in found["redis"]["detail"]
    assert SECRET not in result.output


def test_check_without_keys_names_them() -> None:
    result = run("check")
    assert result.exit_code == 1, result.output
    assert "FAIL providers: GROQ_API_KEY (or OPENAI_API_KEY) must be set" in result.output


def test_probing_without_keys_is_a_finding_too() -> None:
    result = run("check", "--json", "--probe", "--agent", "worker.examples.minimal:entrypoint")
    assert result.exit_code == 1, result.output
    _, found = findings(result)
    assert found["providers"]["ok"], "the agent brings its own"
    assert "GROQ_API_KEY (or OPENAI_API_KEY) must be set" in found["probes"]["detail"]


async def test_probes_ask_every_provider() -> None:
    async with SimulatorServer(options=Options(answer_words=(2, 2))) as sim:
        sim.set_fault("tts", "groq", "status", status=401)
        result = await asyncio.to_thread(run, "check", "--json", "--probe", WORKER_SIMULATOR_URL=sim.url)
    _, found = findings(result)
    probed = {name.rsplit(":", 1)[0]: item for name, item in found.items() if ":" in name}
    assert {name for name, item in probed.items() if item["ok"]} == {
        "stt:cartesia", "stt:groq", "llm:groq", "llm:openai", "tts:cartesia",
    }, result.output  # fmt: skip
    assert probed["tts:groq"]["detail"].startswith("authentication")
    assert result.exit_code == 1


async def test_healthcheck_asks_at_the_port_that_was_set() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.path)

    app_ = web.Application()
    app_.router.add_get("/", answer)
    async with TestServer(app_) as server:
        port = str(server.make_url("/").port)
        assert (await asyncio.to_thread(run, "healthcheck", WORKER_HEALTH_PORT=port)).exit_code == 0
    gone = await asyncio.to_thread(run, "healthcheck", WORKER_HEALTH_PORT=port)
    assert gone.exit_code == 1
    assert gone.stderr.startswith(f"worker: http://127.0.0.1:{port}/ does not answer (ConnectError)")


def test_healthcheck_of_nonsense_is_one_line() -> None:
    for url in ("nonsense", "http://[::"):
        result = run("healthcheck", "--url", url)
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith(f"worker: {url} does not answer")


def test_console_says_what_it_does() -> None:
    result = run("console", "--help")
    assert result.exit_code == 0, result.output
    assert "--agent" in result.output
    assert "--text" in result.output


def test_console_without_such_an_agent_ends_in_one_line() -> None:
    result = run("console", "--agent", "no_such_bot:entrypoint")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("worker: --agent 'no_such_bot:entrypoint': there is no module")


def test_console_without_portaudio_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the package does on import where the library is missing.
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    result = run("console", "--text", WORKER_SIMULATOR_URL="http://127.0.0.1:9")
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("worker: the console needs the PortAudio library: apt-get install")


def test_an_error_audio_that_cannot_be_played_is_one_line() -> None:
    env = {"WORKER_SIMULATOR_URL": "http://127.0.0.1:9", "WORKER_ERROR_AUDIO": "/nowhere/sorry.wav"}
    result = run("check", "--json", **env)
    assert result.exit_code == 2, result.output
    assert "worker: WORKER_ERROR_AUDIO: /nowhere/sorry.wav: there is no such file\n" in result.output
