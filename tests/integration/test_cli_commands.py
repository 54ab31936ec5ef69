"""The operator's commands against a whole supervisor over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from supervisor.cli.app import app
from supervisor.cli.errors import CliError
from supervisor.runtime.supervisor import run
from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD
from supervisor.wire.messages import FaultEvent, SessionInfo
from supervisor.wire.vocabulary import FaultKind
from tests.support.api_rig import OTHER, TARGET, TTS, Rig, rig, settings_for
from tests.support.redis_server import free_port
from tests.support.waiting import wait_until

ADMIN = "admin-token-of-this-test"


@dataclass
class Line:
    """A command line with its supervisor."""

    url: str
    face: Rig

    async def __call__(self, *args: str, code: int = 0, token: str = ADMIN) -> str:
        """What a command printed; it must end with that code."""
        env = {"SUPERVISOR_URL": self.url, "SUPERVISOR_TOKEN": token, "NO_COLOR": "1"}
        result = await asyncio.to_thread(CliRunner().invoke, app, list(args), env=env)
        failed = isinstance(result.exception, CliError)
        ended = result.exception.code if isinstance(result.exception, CliError) else result.exit_code
        assert ended == code, (args, result.output, result.exception)
        return str(result.exception) if failed else result.stdout

    async def json(self, *args: str) -> Any:
        return json.loads(await self(*args, "--json"))


@pytest.fixture
async def line(redis_url: str, fleet: str) -> AsyncIterator[Line]:
    urls: list[str] = []
    stop = asyncio.Event()
    settings = settings_for(redis_url, fleet, port=0, admin_token=ADMIN)
    serving = asyncio.create_task(run(settings, ready=urls.append, stop=stop))
    async with rig(redis_url, fleet, leads=False, admin_token=ADMIN) as face:
        await wait_until(lambda: urls, "it listens", 10)
        await face.worker("w1", TARGET, OTHER, TTS)
        command = Line(urls[0], face)

        async def reported() -> bool:
            view = await face.api.records.view()
            return view is not None and len(view.targets) == 3

        await wait_until(reported, "the targets are known", 10)
        yield command
        stop.set()
        await asyncio.wait_for(serving, 15)


async def test_looking_as_people_and_as_programs_do(line: Line) -> None:
    status = await line.json("status")
    assert (status["targets"], status["healthy"]) == (3, True)
    assert "3 targets" in await line("status")
    items = (await line.json("targets"))["items"]
    assert [item["id"] for item in items] == [TARGET, OTHER, TTS]
    table = await line("targets", "--role", "tts")
    assert TTS in table
    assert TARGET not in table
    assert "\x1b[" not in table
    assert (await line.json("targets", TTS))["provider"] == "groq"
    assert "w1" in await line("workers")
    assert (await line.json("workers", "show", "w1"))["state"] == "running"
    assert [item["id"] for item in (await line.json("workers", "list"))["items"]] == ["w1"]
    assert (await line.json("healthcheck"))["status"] == "ok"
    assert "ok" in await line("healthcheck")


async def test_overriding(line: Line) -> None:
    made = await line.json(
        "override", "set", TTS, "forced_unhealthy", "--reason", "their incident", "--ttl", "5m"
    )
    assert made["actor"] == "admin-token"
    assert TTS in await line("override", "list")
    assert "holds again" in await line("override", "clear", TTS)
    assert (await line.json("override", "list"))["items"] == []
    await line.json("override", "set", "provider:groq", "observe_only", "--reason", "x")
    assert "does not exist" in await line("override", "clear", TTS, code=1)
    await line("override", "set", TTS, "healthy", "--reason", "x", code=2)
    await line("override", "set", "nonsense", "forced_healthy", "--reason", "x", code=2)
    await line("override", "set", TTS, "forced_healthy", code=2)


async def test_policies(line: Line) -> None:
    await line("policy", "set", "role:llm", "run_base=6")
    made = await line.json("policy", "set", "role:llm", "ramp_step_ms=5000")
    assert made["values"] == {"run_base": 6, "ramp_step_ms": 5000}
    assert "role:llm" in await line("policy", "list")
    assert "run_base" in await line("policy", "list", "--rules")
    assert "GET /v1/policies" in await line("policy", "set", "fleet", "nobody=6", code=1)
    await line("policy", "clear", "role:llm")
    assert (await line.json("policy", "list"))["items"] == []


async def test_tokens_and_roles(line: Line) -> None:
    made = await line.json("token", "create", "viewer", "--note", "grafana", "--ttl", "90d")
    assert "grafana" in await line("token", "list")

    async def known() -> bool:
        return await line.face.api.tokens.principal_of(made["token"]) is not None

    await wait_until(known, "the token is known")
    message = await line("token", "list", token=made["token"], code=1)
    assert "needs the role admin" in message
    await line("token", "revoke", made["id"])
    assert (await line.json("token", "list"))["items"] == []
    assert "token" in await line("status", token="wrong-token-altogether", code=1)


async def test_faults_calls_and_the_stream(line: Line) -> None:
    fault = FaultEvent(
        1_700_000_000_000, "w1", "h", TARGET, kind=FaultKind.SERVER, status=503, message="boom"
    )
    await line.face.append("faults", encode(fault))
    keys = line.face.context.keys
    errors = {"llm": {FaultKind.SERVER: 2}, "tts": {FaultKind.CUT: 1}}
    info = SessionInfo("call-a", "w1", 1, turns=2, errors=errors)
    await line.face.redis.hset(keys.session("call-a"), FIELD, encode(info))
    await line.face.redis.expire(keys.session("call-a"), 15)
    await line.face.redis.zadd(keys("sessions"), {"call-a": 1})
    assert "boom" in await line("faults", "--kind", "server")
    assert (await line.json("faults", "--target", OTHER))["items"] == []
    (call,) = (await line("sessions")).splitlines()[1:]
    assert ("call-a" in call, "llm 2 server; tts 1 cut" in call) == (True, True)
    assert (await line.json("sessions", "call-a"))["turns"] == 2
    assert "no calls" in await line("sessions", "--ended")
    printed = await line("tail", "--since", "0-0_0-0", "--kinds", "fault", "--count", "1", "--json")
    assert json.loads(printed)["message"] == "boom"
    assert "boom" in await line("tail", "--since", "0-0_0-0", "--kinds", "fault", "--count", "1")


async def test_probe_and_drain(line: Line) -> None:
    await line("probe", TARGET)
    await line("workers", "drain", "w1")
    assert "does not exist" in await line("workers", "drain", "nobody", code=1)


async def test_a_role_with_nothing_left_makes_status_fail(line: Line) -> None:
    await line("override", "set", TTS, "forced_unhealthy", "--reason", "x")

    async def none_left() -> bool:
        view = await line.face.api.records.view()
        return view is not None and any(target.id == TTS and target.override for target in view.targets)

    await wait_until(none_left, "the override is in the picture")
    status = await line("status", code=1)
    assert TTS in status


def _process(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def test_failures_of_the_real_command_are_one_line_and_an_exit_code() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = _process("status", "--url", url)
    assert found.returncode == 1
    assert found.stdout == ""
    assert len(found.stderr.strip().splitlines()) == 1
    assert "supervisor serve" in found.stderr
    assert _process("healthcheck", "--url", "nonsense").returncode == 2
    wrong = _process("serve", SUPERVISOR_PORT="high")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    assert "SUPERVISOR_PORT" in wrong.stderr


def test_every_command_explains_itself_with_an_example() -> None:
    commands = [
        "serve", "status", "targets", "probe", "override set", "override clear", "override list", "policy list",
        "policy set", "policy clear", "workers", "workers list", "workers show", "workers drain", "sessions", "faults",
        "tail", "token create", "token list", "token revoke", "healthcheck", "demo", "drill",
    ]  # fmt: skip
    for command in commands:
        result = CliRunner().invoke(
            app, [*command.split(), "--help"], env={"NO_COLOR": "1", "COLUMNS": "200"}
        )
        assert result.exit_code == 0, command
        assert "Example" in result.stdout, command
        if command not in {"serve", "healthcheck", "demo", "drill"}:
            assert "--json" in result.stdout, command
            assert "SUPERVISOR_TOKEN" in result.stdout, command
