"""Redis not there, frozen, killed, emptied: the leader survives, converges, and judges nothing by the gap."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from supervisor.core import engine
from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.supervisor import office
from supervisor.store import reads, writes
from supervisor.store.clients import make_client
from supervisor.wire.codec import decode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Audit
from supervisor.wire.vocabulary import OverrideState, State
from tests.support.redis_server import RedisServer
from tests.support.replicas import ask, leading, settings_for
from tests.support.reporting import OTHER, TARGET, RawWorker, snapshot
from tests.support.waiting import WaitTimeout, wait_until

Redis = redis.asyncio.Redis
FLEET = "trouble"
KEYS = Keys(FLEET)


@pytest.fixture
async def client(own_redis: RedisServer) -> Any:
    found = make_client(own_redis.url, 2.0, reconnects=2)
    yield found
    await found.aclose()


async def forced(client: Redis) -> bool:
    """Whether the override of the test is in force, as links see it."""
    found = await snapshot(client, KEYS)
    return found is not None and found.override is OverrideState.FORCED_UNHEALTHY


async def prepare(client: Redis) -> RawWorker:
    """A worker with two targets, and an override of the first."""
    worker = RawWorker(client, KEYS)
    worker.ok()
    worker.ok(OTHER)
    await worker.register()
    await worker.send()
    await wait_until(lambda: snapshot(client, KEYS, OTHER), "both targets are known")
    reply = await ask(
        client, KEYS, "override.set", scope=TARGET, state="forced_unhealthy", reason="r", ttl_s=600
    )
    assert reply.status == 200
    assert await forced(client)
    return worker


async def test_redis_down_at_start_is_waited_for(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with office(settings_for(own_redis.url, FLEET)) as context:
        await wait_until(lambda: context.counters.redis_errors >= 2, "it has tried more than once")
        assert not context.status().ready
        await wait_until(lambda: context.status().last_loop_age_s < 3, "its loop goes round meanwhile")
        own_redis.start()
        await wait_until(lambda: context.status().is_leader, "it leads once Redis is there", 10)
        assert context.status().ready


@pytest.mark.parametrize("with_disk", [False, True])
async def test_an_emptied_redis_is_refilled_by_the_leader(
    own_redis: RedisServer, client: Redis, tmp_path: Path, with_disk: bool
) -> None:
    more: dict[str, Any] = {"state_dir": tmp_path} if with_disk else {}
    standby = settings_for(own_redis.url, FLEET, replica="r2")
    async with leading(own_redis.url, FLEET, **more) as context, office(standby) as other:
        await wait_until(lambda: other.status().ready, "the standby is there")
        await prepare(client)
        epoch, revision = context.status().epoch, context.status().revision
        await cast("Any", client).flushall()

        async def refilled() -> bool:
            return await forced(client) and bool((await reads.kept(client, KEYS))["override"])

        await wait_until(refilled, "the strategy and the overrides are back")
        # Who knew everything goes on; the standby, which knows nothing, has not taken the empty place.
        assert context.status().is_leader
        assert not other.status().is_leader
        await wait_until(lambda: context.status().epoch > epoch, "a higher epoch")
        assert context.status().revision > revision
        assert context.counters.gaps["emptied"] == 1
        assert await snapshot(client, KEYS, OTHER) is not None


async def test_a_lost_strategy_alone_is_noticed(own_redis: RedisServer, client: Redis) -> None:
    async with leading(own_redis.url, FLEET) as context:
        await prepare(client)
        await cast("Any", client).delete(KEYS("strategy"))
        await wait_until(lambda: forced(client), "it is back")
        assert context.counters.refills == 1


async def test_redis_that_comes_back_empty_finds_everything_on_disk(
    own_redis: RedisServer, client: Redis, tmp_path: Path
) -> None:
    """Leader and Redis lost together: what was acknowledged is on the disk."""
    async with leading(own_redis.url, FLEET, state_dir=tmp_path) as context:
        await prepare(client)
        revision = context.status().revision
        engine = tmp_path / "engine.bin"
        written = engine.stat().st_mtime_ns if engine.exists() else 0
        await wait_until(
            lambda: engine.exists() and engine.stat().st_mtime_ns > written, "the state is on the disk"
        )
    own_redis.kill()
    own_redis.start()
    async with leading(own_redis.url, FLEET, replica="r2", state_dir=tmp_path) as context:
        await wait_until(lambda: forced(client), "the override is in force")
        assert context.status().revision > revision
        assert set((await reads.kept(client, KEYS))["override"]) == {TARGET}
        assert context.counters.gaps["emptied"] == 1


async def test_a_standby_keeps_operators_records_on_its_own_disk(
    own_redis: RedisServer, client: Redis, tmp_path: Path
) -> None:
    standby = settings_for(own_redis.url, FLEET, replica="r2", state_dir=tmp_path / "two")
    async with leading(own_redis.url, FLEET, state_dir=tmp_path / "one"), office(standby):
        await prepare(client)
        await wait_until(lambda: (tmp_path / "two" / "kept.bin").exists(), "the copy is there")
    own_redis.kill()
    own_redis.start()
    async with leading(own_redis.url, FLEET, replica="r2", state_dir=tmp_path / "two"):
        worker = RawWorker(client, KEYS)
        worker.ok()
        await worker.register()
        await worker.send()
        await wait_until(lambda: forced(client), "the override is in force")


async def test_an_older_disk_does_not_undo_what_redis_knows(
    own_redis: RedisServer, client: Redis, tmp_path: Path
) -> None:
    async with leading(own_redis.url, FLEET, state_dir=tmp_path / "one"):
        await prepare(client)
    # Another leader, with a disk of its own, takes it back; then the first one's old disk returns.
    async with leading(own_redis.url, FLEET, replica="r2", state_dir=tmp_path / "two"):
        assert (await ask(client, KEYS, "override.clear", scope=TARGET)).status == 200
    async with leading(own_redis.url, FLEET, state_dir=tmp_path / "one"):
        await wait_until(lambda: snapshot(client, KEYS), "the strategy is there")
        assert not await forced(client)
        assert not (await reads.kept(client, KEYS))["override"]


async def frozen_until_noticed(server: RedisServer, context: SupervisorContext) -> None:
    """Freeze, until the leader has said so and has gone on trying for longer than reports are judged by."""
    server.freeze()
    before = context.counters.redis_errors
    await wait_until(lambda: not context.status().redis_ok, "it is noticed", 10)
    await wait_until(lambda: context.counters.redis_errors >= before + 3, "it goes on trying", 20)
    await wait_until(lambda: context.status().last_loop_age_s < 5, "its loop goes round meanwhile")
    assert not context.status().ready
    server.thaw()


async def test_a_frozen_redis_is_survived_without_a_verdict_from_the_gap(
    own_redis: RedisServer, client: Redis
) -> None:
    async with leading(own_redis.url, FLEET, redis_timeout_s=1.0) as context:
        worker = await prepare(client)
        await frozen_until_noticed(own_redis, context)
        # What happened meanwhile comes all at once: as many faults as ever condemned a target.
        worker.fault(OTHER, times=40)

        async def back() -> bool:
            try:
                await worker.register()
                await worker.send()
            except redis.RedisError:
                return False
            return context.status().is_leader and context.status().redis_ok

        await wait_until(back, "it leads again", 10)
        assert context.counters.gaps.total() >= 1
        read = context.counters.reports_folded
        await worker.send()
        await wait_until(lambda: context.counters.reports_folded > read, "reports are read again")
        other = await snapshot(client, KEYS, OTHER)
        assert other is not None
        assert other.state is State.HEALTHY
        assert await forced(client)


async def test_a_killed_redis_that_comes_back_with_its_data_goes_on() -> None:
    with RedisServer({"appendonly": "yes", "appendfsync": "always"}) as server:
        client = make_client(server.url, 2.0, reconnects=2)
        async with leading(server.url, FLEET) as context:
            await prepare(client)
            server.kill()
            await wait_until(lambda: not context.status().redis_ok, "it is noticed", 10)
            server.start()
            await wait_until(lambda: context.status().redis_ok and context.status().is_leader, "it leads", 10)
            await asyncio.gather(ask(client, KEYS, "override.clear", scope=TARGET))
            assert not await forced(client)
        await client.aclose()


async def test_a_change_that_redis_could_not_take_holds_and_is_written_down(
    own_redis: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = writes.keep, iter([True])

    async def away_once(*args: Any, **more: Any) -> None:
        if next(failures, False):
            raise RedisConnectionError
        await real(*args, **more)

    monkeypatch.setattr(writes, "keep", away_once)
    async with leading(own_redis.url, FLEET):
        worker = RawWorker(client, KEYS)
        worker.ok()
        await worker.register()
        await worker.send()
        await wait_until(lambda: snapshot(client, KEYS), "the target is known")
        with pytest.raises(WaitTimeout):
            await ask(
                client,
                KEYS,
                "override.set",
                0.5,
                scope=TARGET,
                state="forced_unhealthy",
                reason="r",
                ttl_s=60,
            )
        await wait_until(lambda: forced(client), "it holds")
        await wait_until(lambda: overrides(client), "Redis has it")

        async def written() -> list[Audit]:
            raw = await cast("Any", client).xrange(KEYS("audit"))
            return [decode(fields[FIELD.encode()], Audit) for _, fields in raw]

        (found,) = await wait_until(written, "the audit says so")
        assert (found.actor, found.op, found.subject, found.status) == ("tester", "override.set", TARGET, 202)


async def overrides(client: Redis) -> set[str]:
    return set((await reads.kept(client, KEYS))["override"])


async def test_reads_that_redis_refuses_are_said_and_tried_again(
    own_redis: RedisServer, client: Redis
) -> None:
    """A missing permission is no reason to spin, nor to be silent about it."""
    async with leading(own_redis.url, FLEET) as context:
        await cast("Any", client).execute_command("ACL", "SETUSER", "default", "-xread")
        await wait_until(lambda: context.counters.step_errors, "it is counted")
        await cast("Any", client).execute_command("ACL", "SETUSER", "default", "+xread")
        worker = RawWorker(client, KEYS)
        worker.ok()
        await worker.register()
        await worker.send()
        await wait_until(lambda: snapshot(client, KEYS), "it reads again", 10)


async def test_a_replica_whose_takeover_fails_tries_again(own_redis: RedisServer) -> None:
    class Broken:
        """The engine, but that it cannot begin at first."""

        failures = 2

        def __getattr__(self, name: str) -> Any:
            if name == "new_state" and self.failures:
                self.failures -= 1
                raise RuntimeError
            return getattr(engine, name)

    async with office(settings_for(own_redis.url, FLEET), engine=cast("Any", Broken())) as context:
        await wait_until(lambda: context.status().is_leader, "it leads after all", 15)
        assert context.counters.step_errors == 2


async def test_a_copy_of_the_records_that_redis_did_not_give_is_asked_for_again(
    own_redis: RedisServer, client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with leading(own_redis.url, FLEET):
        await prepare(client)
        real, failures = reads.kept, iter([True])

        async def away_once(*args: Any) -> Any:
            if next(failures, False):
                raise RedisConnectionError
            return await real(*args)

        monkeypatch.setattr(reads, "kept", away_once)
        async with office(settings_for(own_redis.url, FLEET, replica="r2", state_dir=tmp_path)):
            await wait_until(lambda: (tmp_path / "kept.bin").exists(), "the copy is there", 10)
