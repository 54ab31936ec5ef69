"""Two processes that both believe to lead: the one that was frozen wakes up, changes nothing, and stands by."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from supervisor.wire.keys import Keys
from tests.support.replicas import Process, ask, events, serving, view
from tests.support.reporting import OTHER, TARGET, RawWorker, snapshot
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

START_S = 60.0


async def test_a_leader_that_was_frozen_is_fenced_when_it_wakes(
    redis_client: Redis, redis_url: str, fleet: str, tmp_path: Path
) -> None:
    keys = Keys(fleet)
    env = {"REDIS_URL": redis_url, "SUPERVISOR_FLEET": fleet, "SUPERVISOR_LOG_FORMAT": "json"}
    async with (
        serving(tmp_path, {**env, "SUPERVISOR_REPLICA": "one"}) as one,
        serving(tmp_path, {**env, "SUPERVISOR_REPLICA": "two"}) as two,
    ):
        replicas = {"one": one, "two": two}
        await wait_until(
            lambda: all(_says(r, "supervisor.start") for r in replicas.values()), "both run", START_S
        )
        await wait_until(lambda: leader(redis_client, keys), "one of them leads", START_S)
        worker = RawWorker(redis_client, keys)
        worker.ok()
        worker.ok(OTHER)
        await worker.register()
        await worker.send()
        await wait_until(lambda: snapshot(redis_client, keys, OTHER), "targets are known", 20)

        async def reigns() -> str:
            # On a busy machine the first one's lease may be over before it has taken over.
            for name in replicas:
                if await leads(redis_client, keys, name):
                    return name
            return ""

        old = await wait_until(reigns, "one of them has taken over", 20)
        new = "two" if old == "one" else "one"
        replicas[old].signal(signal.SIGSTOP)
        await wait_until(lambda: leads(redis_client, keys, new), "the other leads", 30)
        # What the new leader is told, and how it sees the world, is what counts from here on.
        done = await ask(redis_client, keys, "override.set", 20, scope=TARGET, state="forced_unhealthy",
                         reason="told to the new leader", ttl_s=600)  # fmt: skip
        assert done.status == 200
        after = await snapshot(redis_client, keys)
        assert after is not None
        replicas[old].signal(signal.SIGCONT)
        await wait_until(lambda: _says(replicas[old], "leader.fenced"), "the old one gives way", 30)
        # It had its chance: a few more of the new leader's rounds, then nothing of the old one's may be seen.
        first = await view(redis_client, keys)
        assert first is not None

        async def later() -> bool:
            picture = await view(redis_client, keys)
            return picture is not None and picture.at_ms > first.at_ms + 1_500

        await wait_until(later, "the new leader leads on", 30)
        now = await snapshot(redis_client, keys)
        assert now is not None
        assert (now.epoch, now.override, now.admit) == (after.epoch, after.override, 0.0)
        assert now.revision >= after.revision
        assert await leads(redis_client, keys, new)
        changes = [e.after for e in await events(redis_client, keys, "leader")]
        assert changes[-2:] == [old, new]
        assert "Traceback" not in replicas[old].output() + replicas[new].output()


def _says(process: Process, action: str) -> bool:
    return f'"{action}"' in process.output()


async def leader(client: Redis, keys: Keys) -> str:
    owner = await cast("Any", client).hget(keys("leader"), "owner")
    return owner.decode() if owner else ""


async def leads(client: Redis, keys: Keys, name: str) -> bool:
    """Holds the lease and has shown the world its picture."""
    picture = await view(client, keys)
    return await leader(client, keys) == name and picture is not None and picture.leader == name
