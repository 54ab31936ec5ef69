"""Supervisor replicas for tests: real ones, in this process or in one of their own."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import redis.asyncio

from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.supervisor import office
from supervisor.settings import SupervisorSettings, read_settings
from supervisor.wire.codec import decode, encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Command, Event, Reply
from supervisor.wire.view import FleetView, decode_view
from tests.support.waiting import wait_until


def settings_for(url: str, fleet: str, **more: Any) -> SupervisorSettings:
    """Settings of a replica that does not look at real providers, and gives Redis time on a busy machine."""
    given: dict[str, Any] = {"redis_url": url, "fleet": fleet, "checks": False, "replica": "r1"}
    return read_settings(**{**given, "redis_timeout_s": 10.0, **more})


@asynccontextmanager
async def leading(url: str, fleet: str, **more: Any) -> AsyncGenerator[SupervisorContext]:
    """A replica in this process that leads."""
    async with office(settings_for(url, fleet, **more)) as context:
        await wait_until(lambda: context.status().is_leader, "it leads")
        yield context


async def events(client: redis.asyncio.Redis, keys: Keys, kind: str = "") -> list[Event]:
    """The events so far."""
    raw = await cast("Any", client).xrange(keys("events"))
    found = [decode(fields[FIELD.encode()], Event) for _, fields in raw]
    return [event for event in found if not kind or event.kind == kind]


async def view(client: redis.asyncio.Redis, keys: Keys) -> FleetView | None:
    """The leader's picture."""
    return decode_view(await cast("Any", client).get(keys("view")))


async def ask(client: redis.asyncio.Redis, keys: Keys, op: str, timeout: float = 5.0, **args: Any) -> Reply:
    """A command as REST sends it, and the leader's reply."""
    command = Command(secrets.token_hex(8), 0, "tester", op, args)
    api = cast("Any", client)
    await api.xadd(keys("commands"), {FIELD: encode(command)}, maxlen=1000)

    async def answer() -> bytes:
        return cast("bytes | None", await api.lpop(keys.reply(command.id))) or b""

    return decode(await wait_until(answer, f"a reply to {op}", timeout), Reply)


class Process:
    """`python -m supervisor serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        os.kill(self.process.pid, number)

    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text(errors="replace")

    async def end(self, timeout: float = 15.0) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(timeout):
            return await self.process.wait()


@asynccontextmanager
async def serving(folder: Path, env: Mapping[str, str]) -> AsyncGenerator[Process]:
    """Start one; it is killed when the block ends."""
    log = folder / f"replica-{secrets.token_hex(3)}.log"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SUPERVISOR_", "REDIS_"))}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisor", "serve",
            env={**clean, "SUPERVISOR_PORT": "0", "SUPERVISOR_CHECKS": "false", **env},
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield Process(process, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()
