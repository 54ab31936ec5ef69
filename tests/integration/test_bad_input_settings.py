"""Wrong settings, with the real commands: one line that says what to change, exit code 2, no secret, no traceback."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

SECRET = "gsk_neverShowThis0123456789"
OURS = ("SUPERVISOR_", "WORKER_", "REDIS_", "LIVEKIT_", "GROQ_", "CARTESIA_", "OPENAI_", "DEEPGRAM_")
LIVEKIT = {"LIVEKIT_URL": "ws://127.0.0.1:1", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s" * 32}

pytestmark = pytest.mark.timeout(150)


async def run(*argv: str, **env: str) -> tuple[int, str, str]:
    """A command's exit code, stdout and stderr. One that does not end by itself is a failure."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *argv, env=clean | env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(100):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


def check(found: tuple[int, str, str], name: str, line: str) -> None:
    code, out, err = found
    said = f"{name}: exit {code}\n{out}{err}"
    assert code == 2, said
    assert out == "", said
    assert err.startswith(f"{name}: {line}"), said
    assert err.count("\n") == 1, said
    assert SECRET not in err, said


async def test_supervisor_serve_stops_at_a_setting_written_wrongly() -> None:
    """What is wrong with values is tried in tests/acceptance/test_supervisor_process.py."""
    found = await run("supervisor", "serve", SUPERVISOR_GROQ_BASEURL=f"http://u:{SECRET}@x")
    check(
        found,
        "supervisor",
        "SUPERVISOR_GROQ_BASEURL: there is no such setting; did you mean SUPERVISOR_GROQ_BASE_URL?",
    )


async def test_worker_start_stops_at_a_wrong_setting() -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({"REDIS_URL": f"http://:{SECRET}@host"}, "REDIS_URL: must begin with redis://"),
        ({"WORKER_ID": "two words"}, "WORKER_ID: "),
        ({"WORKER_HEALTHPORT": "1"}, "WORKER_HEALTHPORT: there is no such setting; did you mean WORKER_HEALTH_PORT?"),
        ({"GROQ_API_KEY": SECRET}, "set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET"),
        (LIVEKIT, "GROQ_API_KEY (or OPENAI_API_KEY) must be set"),
        ({**LIVEKIT, "WORKER_AGENT": "no_such:entrypoint"}, "--agent 'no_such:entrypoint': there is no module"),
        (
            {**LIVEKIT, "GROQ_API_KEY": SECRET, "WORKER_ERROR_AUDIO": "/nowhere/sorry.wav"},
            "WORKER_ERROR_AUDIO: /nowhere/sorry.wav: there is no such file",
        ),
    ]  # fmt: skip
    for env, line in cases:
        check(await run("worker", "start", **env), "worker", line)


async def test_worker_console_stops_at_a_wrong_sound_file() -> None:
    found = await run(
        "worker", "console", "--text", GROQ_API_KEY=SECRET, WORKER_ERROR_AUDIO="/nowhere/sorry.wav"
    )
    check(found, "worker", "WORKER_ERROR_AUDIO: /nowhere/sorry.wav: there is no such file")
