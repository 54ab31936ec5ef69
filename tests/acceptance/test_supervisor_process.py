"""The supervisor as operators run it: processes, signals, wrong settings."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import redis.asyncio

from supervisor.runtime.tasks import end
from supervisor.store.embedded import EmbeddedRedis
from supervisor.store.lease import LeaderRecord, read_leader
from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Command
from supervisor.wire.vocabulary import State
from tests.support.redis_server import sync_client
from tests.support.replicas import Process, events, serving
from tests.support.reporting import OTHER, RawWorker, snapshot
from tests.support.waiting import wait_until, wait_until_sync

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]
Redis = redis.asyncio.Redis
START_S = 30


async def led_by(client: Redis, keys: Keys, name: str) -> LeaderRecord:
    async def record() -> bool:
        found = await read_leader(client, keys)
        raw = await cast("Any", client).hget(keys("leader"), "until_ms")
        published = await cast("Any", client).exists(keys("strategy"))
        return found is not None and found.owner == name and int(raw) > 0 and bool(published)

    await wait_until(record, f"{name} leads", START_S)
    found = await read_leader(client, keys)
    assert found is not None
    return found


async def url_of(process: Process) -> str:
    """Where it says it listens."""

    def said() -> str:
        for line in process.output().splitlines():
            if line.startswith("{") and '"supervisor.start"' in line:
                return str(json.loads(line)["url"])
        return ""

    return await wait_until(said, "it says where it listens", START_S)


async def test_kill_9_of_a_publishing_leader_is_over_within_three_seconds(
    redis_client: Redis, redis_url: str, fleet: str, tmp_path: Path
) -> None:
    keys = Keys(fleet)
    env = {"REDIS_URL": redis_url, "SUPERVISOR_FLEET": fleet, "SUPERVISOR_LOG_FORMAT": "json"}
    async with (
        serving(tmp_path, {**env, "SUPERVISOR_REPLICA": "one"}) as one,
        serving(tmp_path, {**env, "SUPERVISOR_REPLICA": "two"}) as two,
    ):
        await asyncio.gather(url_of(one), url_of(two))
        record = await wait_until_someone_leads(redis_client, keys)
        leader, name = (one, "one") if record.owner == "one" else (two, "two")
        other = "two" if name == "one" else "one"
        worker = RawWorker(redis_client, keys)
        worker.ok()
        worker.ok(OTHER)
        await worker.register()
        await worker.send()
        await wait_until(lambda: snapshot(redis_client, keys, OTHER), "targets are known")

        async def condemned() -> bool:
            worker.fault()
            await worker.send()
            found = await snapshot(redis_client, keys)
            return found is not None and found.state is State.UNHEALTHY

        await wait_until(condemned, "a verdict", 10, every_s=0.05)
        before = await snapshot(redis_client, keys)
        # Operators' changes make the leader publish all the time; it is killed somewhere in the middle of that.
        async with changing(redis_client, keys):
            revision = (await led_by(redis_client, keys, name)).revision

            async def publishing() -> bool:
                found = await read_leader(redis_client, keys)
                return found is not None and found.revision > revision + 20

            await wait_until(publishing, "it publishes", 20)
            leader.signal(signal.SIGKILL)
            killed_mono = time.monotonic()
            at_kill = await read_leader(redis_client, keys)

            async def taken() -> bool:
                found = await read_leader(redis_client, keys)
                said = await events(redis_client, keys, "leader")
                return found is not None and found.owner == other and said[-1].after == other

            # Three seconds are the promise; the machine that tests may be a busy one.
            await wait_until(taken, "the standby leads", 6)
            took_s = time.monotonic() - killed_mono
        after = await snapshot(redis_client, keys)
        now = await read_leader(redis_client, keys)
        assert at_kill is not None
        assert now is not None
        assert before is not None
        assert after is not None
        assert (now.epoch > at_kill.epoch, now.revision > at_kill.revision) == (True, True)
        assert (after.state, after.reason, after.since_at_ms) == (
            before.state,
            before.reason,
            before.since_at_ms,
        )
        assert after.epoch == now.epoch
        other_snapshot = await snapshot(redis_client, keys, OTHER)
        assert other_snapshot is not None
        assert other_snapshot.state is State.HEALTHY
        gaps = await events(redis_client, keys, "gap")
        assert not gaps
        sys.stdout.write(f"takeover after {took_s:.2f} s\n")


@asynccontextmanager
async def changing(client: Redis, keys: Keys) -> AsyncGenerator[None]:
    """Operators who change their mind all the time."""

    async def change() -> None:
        for made in itertools.count(1):
            op = "override.set" if made % 2 else "override.clear"
            args: dict[str, Any] = {"scope": OTHER}
            if made % 2:
                args |= {"state": "observe_only", "reason": "busy"}
            data = encode(Command(f"change-{made}", 0, "tester", op, args))
            await cast("Any", client).xadd(keys("commands"), {FIELD: data}, maxlen=1000)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(change())
    try:
        yield
    finally:
        await end(task)


async def wait_until_someone_leads(client: Redis, keys: Keys) -> LeaderRecord:
    async def there() -> bool:
        return bool(await cast("Any", client).exists(keys("strategy")))

    await wait_until(there, "one of them leads", START_S)
    found = await read_leader(client, keys)
    assert found is not None
    return found


async def test_sigterm_gives_the_lease_back_and_ends_in_order(
    redis_client: Redis, redis_url: str, fleet: str, tmp_path: Path
) -> None:
    keys = Keys(fleet)
    env = {"REDIS_URL": redis_url, "SUPERVISOR_FLEET": fleet, "SUPERVISOR_REPLICA": "one"}
    async with serving(tmp_path, env) as process:
        url = await url_of(process)
        await led_by(redis_client, keys, "one")
        async with httpx.AsyncClient(base_url=url, timeout=5) as http:

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await wait_until(ready, "it is ready", 10)
        assert await process.end() == 0
        assert await cast("Any", redis_client).hget(keys("leader"), "until_ms") == b"0"
        assert "Traceback" not in process.output()


async def test_redis_down_at_start_is_served_as_not_ready(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with serving(tmp_path, {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}) as process:
            url = await url_of(process)
            async with httpx.AsyncClient(base_url=url, timeout=10) as http:
                assert (await http.get("/readyz")).status_code == 503
            assert await process.end() == 0
    output = process.output()
    # One line for the change, none for each try.
    assert output.count("redis.down") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"SUPERVISOR_PORT": "many"}, "SUPERVISOR_PORT"),
        ({"SUPERVISOR_FLEET": "Not A Fleet"}, "SUPERVISOR_FLEET"),
        ({"REDIS_URL": "http://:hunter2secret@redis"}, "REDIS_URL"),
        ({"SUPERVISOR_ADMIN_TOKEN": "hunter2secret"}, "SUPERVISOR_ADMIN_TOKEN"),
        ({"SUPERVISOR_LEASE_TTL_MS": "600", "SUPERVISOR_LEASE_RENEW_MS": "500"}, "SUPERVISOR_LEASE_RENEW_MS"),
        ({"SUPERVISOR_GROQ_BASE_URL": "https://me:hunter2secret@groq"}, "SUPERVISOR_GROQ_BASE_URL"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(env: dict[str, str], word: str) -> None:
    done = run_serve(env)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert len(lines) == 1
    assert word in lines[0]
    assert "hunter2secret" not in done.stderr + done.stdout


def test_a_taken_port_and_a_state_folder_that_is_none_are_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_serve({"SUPERVISOR_PORT": str(taken.getsockname()[1])})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "SUPERVISOR_PORT" in done.stderr
    (tmp_path / "file").write_text("x")
    done = run_serve({"SUPERVISOR_STATE_DIR": str(tmp_path / "file")})
    assert done.returncode == 2
    assert "SUPERVISOR_STATE_DIR" in done.stderr


def run_serve(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SUPERVISOR_", "REDIS_"))}
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "serve"],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


_PARENT = """
import os, sys, time
from supervisor.runtime.tasks import end
from supervisor.store.embedded import EmbeddedRedis
server = EmbeddedRedis().start()
print(server.url, server.pid, flush=True)
time.sleep(60)  # the test kills it long before
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_embedded_server_dies_with_its_parent_and_survives_ctrl_c() -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        url, pid = parent.stdout.readline().split()
        os.kill(int(pid), signal.SIGINT)
        with sync_client(url) as client:
            assert client.ping()
    finally:
        parent.kill()
        parent.wait(timeout=10)
        if parent.stdout is not None:
            parent.stdout.close()
    wait_until_sync(lambda: not alive(int(pid)), "the server has ended", 10)


def test_the_embedded_server_keeps_its_data_in_a_folder(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, sync_client(server.url) as client:
        client.set("k", "v")
        client.execute_command("WAITAOF", 1, 0, 5000)
    with EmbeddedRedis(tmp_path) as server, sync_client(server.url) as client:
        assert client.get("k") == b"v"
