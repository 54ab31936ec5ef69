"""A leader on a real Redis: from reports to strategy, and whatever workers may write that is no report."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis.asyncio

from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.supervisor import office
from supervisor.store import lease as leases
from supervisor.store import reads
from supervisor.store.history import FINE, read_history
from supervisor.store.recording import read_recording
from supervisor.wire.codec import MAX_BYTES, decode, encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Directive, Goodbye, Report, Snapshot, Wake
from supervisor.wire.vocabulary import DirectiveKind, State
from tests.support.replicas import events, leading, settings_for, view
from tests.support.reporting import OTHER, TARGET, RawWorker, snapshot
from tests.support.waiting import wait_until

Redis = redis.asyncio.Redis


async def condemn(worker: RawWorker, target: str = TARGET) -> None:
    """Faults until the strategy says unhealthy."""

    async def condemned() -> bool:
        worker.fault(target)
        await worker.send()
        found = await snapshot(worker.client, worker.keys, target)
        return found is not None and found.state is State.UNHEALTHY

    await wait_until(condemned, f"{target} is condemned", 10, every_s=0.1)


async def seen(client: Redis, keys: Keys, target: str = TARGET) -> None:
    """Until the strategy knows the target."""
    await wait_until(lambda: snapshot(client, keys, target), f"{target} in the strategy")


async def test_faults_become_a_verdict_that_wakes_the_links(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    keys = Keys(fleet)
    async with leading(redis_url, fleet) as context, cast("Any", redis_client).pubsub() as pubsub:
        worker = RawWorker(redis_client, keys)
        worker.ok()
        worker.ok(OTHER)
        await worker.register()
        await worker.send()
        await seen(redis_client, keys)
        await pubsub.subscribe(keys("wake"))
        await pubsub.get_message(timeout=5)
        await condemn(worker)
        woken = decode((await pubsub.get_message(timeout=5))["data"], Wake)
        assert woken.epoch == context.status().epoch
        # The wake-up is out a moment before the leader has the answer that says so.
        await wait_until(lambda: context.status().revision >= woken.revision, "its status says so too")
        assert {s.target: s.state for s in woken.snapshots}[TARGET] is State.UNHEALTHY
        assert TARGET in {e.target for e in await events(redis_client, keys, "verdict")}

        async def shown() -> bool:
            picture = await view(redis_client, keys)
            states = {t.id: t.state for t in picture.targets} if picture else {}
            return states == {TARGET: State.UNHEALTHY, OTHER: State.HEALTHY}

        await wait_until(shown, "the picture follows at once")
        picture = await view(redis_client, keys)
        assert picture is not None
        assert picture.leader == "r1"
        # Three seconds later a probe goes to the worker that holds the target.

        async def directive() -> list[Any]:
            return await cast("Any", redis_client).xrange(keys.directive("w1"))

        raw = await wait_until(directive, "a probe", 10)
        probe = decode(raw[0][1][FIELD.encode()], Directive)
        assert (probe.kind, probe.target, probe.epoch) == (DirectiveKind.PROBE, TARGET, woken.epoch)
        assert probe.deadline_at_ms > await reads.now_ms(redis_client) - 10_000
    record = await leases.read_leader(redis_client, keys)
    assert record is not None
    assert record.revision >= woken.revision


async def test_a_leader_that_ends_in_order_gives_the_lease_back(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    keys = Keys(fleet)
    async with leading(redis_url, fleet, lease_ttl_ms=60_000, lease_renew_ms=400) as context:
        epoch = context.status().epoch
    async with leading(redis_url, fleet, replica="r2") as context:
        assert context.status().epoch > epoch
    leaders = await events(redis_client, keys, "leader")
    assert [event.after for event in leaders] == ["r1", "r2"]


async def test_a_standby_takes_over_what_the_leader_knew(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    standby = settings_for(redis_url, fleet, replica="r2")
    async with leading(redis_url, fleet) as first, office(standby) as second:
        await wait_until(lambda: second.status().ready, "the standby knows its place")
        assert not second.status().is_leader
        assert second.status().leader == "r1"
        worker.ok()
        worker.ok(OTHER)
        await worker.register()
        await worker.send()
        await seen(redis_client, keys)
        await condemn(worker)
        before = await snapshot(redis_client, keys)
        assert before is not None
        led, revision = first.status().epoch, first.status().revision
        # The lease changes hands behind the leader's back: its next write is refused, and it stands by.
        await cast("Any", redis_client).hset(keys("leader"), mapping={"token": "x", "until_ms": "0"})
        await wait_until(lambda: first.counters.leases_lost, "it is told that it leads no more")

        def leads() -> SupervisorContext | None:
            # One that was told just now still has its old epoch for a moment.
            anew = [each for each in (first, second) if each.status().is_leader and each.status().epoch > led]
            return anew[0] if anew else None

        async def published() -> Snapshot | None:
            found = await snapshot(redis_client, keys)
            return found if found is not None and found.epoch > before.epoch else None

        new = await wait_until(leads, "one leads anew", 10)
        assert new is not None
        after = await wait_until(published, "it publishes what it knows", 10)
        assert after is not None
        assert new.status().revision > revision
        assert (after.state, after.reason, after.since_at_ms) == (
            before.state, before.reason, before.since_at_ms
        )  # fmt: skip
        assert after.epoch == new.status().epoch
        assert first.counters.leases_lost == 1
        assert not new.counters.gaps


@pytest.fixture
async def led(redis_url: str, fleet: str) -> Any:
    async with leading(redis_url, fleet) as context:
        yield context


async def dead(client: Redis, keys: Keys) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in await cast("Any", client).xrange(keys("dead"))]


def _wrong_worker() -> bytes:
    return encode(Report("somebody-else", "b", 1, 0, "h"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\x01", "malformed"),
        (b"\x01not messagepack", "malformed"),
        (b"\x07anything", "unknown_version"),
        (b"\x01" + b"x" * (MAX_BYTES + 10), "oversized"),
        (_wrong_worker(), "wrong_worker"),
        (encode(Report("w1", "b", 1, 0, "h"))[:-3], "malformed"),
    ],
)
async def test_what_cannot_be_read_is_kept_and_stepped_over(
    redis_client: Redis, fleet: str, led: SupervisorContext, data: bytes, reason: str
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    await worker.register()
    await worker.send(data)
    worker.ok()
    await worker.send()
    await seen(redis_client, keys)
    await wait_until(lambda: led.counters.unreadable, "it is counted")

    async def is_kept() -> bool:
        return bool(await dead(redis_client, keys))

    await wait_until(is_kept, "an entry in dead")
    (kept,) = await dead(redis_client, keys)
    assert kept[b"reason"].decode() == reason
    assert kept[b"stream"] == b"in:w1"
    assert kept[b"data"] == data[:512]
    assert led.counters.unreadable == {reason: 1}
    assert led.counters.step_errors == 0


async def test_an_entry_without_fields_of_ours_is_stepped_over(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    await worker.register()
    await cast("Any", redis_client).xadd(keys.inbox("w1"), {"x": "y", "z": "w"})
    worker.ok()
    await worker.send()
    await seen(redis_client, keys)
    assert led.counters.unreadable.total() == 1


async def test_a_report_twice_and_an_old_one_change_nothing(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    worker.ok(times=4)
    await worker.register()
    old = worker.report()
    await worker.send(old)
    worker.fault(times=2)
    newer = worker.report()
    for data in (newer, newer, old, newer):
        await worker.send(data)
    await wait_until(lambda: led.counters.entries_read == 5, "all are read")

    async def counted() -> tuple[int, int] | None:
        picture = await view(redis_client, keys)
        found = [t for t in picture.targets if t.id == TARGET] if picture else []
        return (found[0].attempts, found[0].faults) if found and found[0].faults else None

    # A worker's first report may be its baseline, or count: but what came after it counts once.
    found = await wait_until(counted, "faults in the view")
    assert found in {(2, 2), (6, 2)}


async def test_a_report_from_the_future_is_read_and_does_not_deafen(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    worker.ok()
    await worker.register()
    at_ms = await reads.now_ms(redis_client)
    await worker.send(entry_id=f"{at_ms + 86_400_000}-0")
    await seen(redis_client, keys)
    read = led.counters.entries_read
    worker.ok()
    await worker.send()
    await wait_until(lambda: led.counters.entries_read > read, "the next report is read too")
    assert not led.counters.gaps


async def test_of_two_processes_with_one_worker_id_the_newer_is_heard(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    old = RawWorker(redis_client, keys, "w1", boot="old")
    new = RawWorker(redis_client, keys, "w1", boot="new")
    old.ok(times=10)
    new.ok(OTHER, times=10)
    await new.register()
    await old.send()
    await wait_until(lambda: led.counters.reports_folded == 1, "the first is heard")
    await new.send()

    async def clash() -> bool:
        old.fault()
        await old.send()
        new.ok(OTHER)
        await new.send()
        return bool(await events(redis_client, keys, "worker"))

    await wait_until(clash, "an event about the id used twice", 10, every_s=0.1)
    assert led.counters.worker_id_clashes > 0
    (said,) = [e for e in await events(redis_client, keys, "worker") if "two processes" in e.reason]
    assert said.worker == "w1"
    picture = await view(redis_client, keys)
    assert picture is not None
    assert all(t.faults == 0 for t in picture.targets)


async def test_a_key_of_the_wrong_type_does_not_deafen_the_leader(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    bad = RawWorker(redis_client, keys, "bad")
    good = RawWorker(redis_client, keys, "good")
    await cast("Any", redis_client).set(keys.inbox("bad"), "no stream")
    await bad.register()
    await good.register()
    await wait_until(lambda: led.counters.unreadable["wrong_type"], "it is noticed")
    good.ok()
    await good.send()
    await seen(redis_client, keys)
    assert (await dead(redis_client, keys))[0][b"stream"] == b"in:bad"


async def test_workers_that_leave_are_forgotten(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    polite, dying = (RawWorker(redis_client, keys, name) for name in ("polite", "dying"))
    for worker in (polite, dying):
        worker.ok()
        await worker.register()
        await worker.send()

    async def there() -> set[str]:
        picture = await view(redis_client, keys)
        return {worker.worker for worker in picture.workers} if picture else set()

    await wait_until(lambda: there_is(there, {"polite", "dying"}), "both are there")
    await polite.send(encode(Goodbye("polite", polite.boot)))
    await wait_until(lambda: there_is(there, {"dying"}), "the polite one has left", 10)
    await cast("Any", redis_client).delete(keys.worker("dying"))
    await wait_until(lambda: there_is(there, set()), "the other one's record has run out", 10)
    assert await cast("Any", redis_client).zrange(keys("workers"), 0, -1) in ([], [b"polite"])


async def there_is(there: Any, wanted: set[str]) -> bool:
    return await there() == wanted


async def test_a_leader_goes_above_the_epoch_that_workers_obey(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    worker.ok()
    worker.epoch = led.status().epoch + 5_000_000
    await worker.register()
    await worker.send()
    await wait_until(lambda: led.status().epoch > worker.epoch, "a higher epoch")
    found = await snapshot(redis_client, keys)
    assert found is not None
    assert found.epoch == led.status().epoch
    # What no leader can ever have had is a broken worker's word, and is not followed.
    worker.epoch = 2**53
    await worker.send()
    read = led.counters.entries_read
    await worker.send()
    await wait_until(lambda: led.counters.entries_read > read, "it was read")
    assert led.status().epoch < 2**50


async def test_history_and_recording_are_kept(
    redis_client: Redis, fleet: str, led: SupervisorContext
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    worker.ok(times=3)
    worker.fault(times=2)
    await worker.register()
    await worker.send()

    async def history() -> list[Any]:
        return await read_history(
            redis_client, keys, TARGET, FINE, await reads.now_ms(redis_client), 3_600_000
        )

    points = await wait_until(history, "a step of the history", 12)
    assert sum(point.attempts for point in points) == 5
    assert sum(point.ok for point in points) == 3
    assert sum(point.faults.get("server", 0) for point in points) == 2
    inputs: list[Any] = []

    async def recorded() -> bool:
        inputs[:], _ = await read_recording(redis_client, keys)
        return {"TookOver", "Tick", "Reported"} <= {type(item).__name__ for _, item in inputs}

    await wait_until(recorded, "all kinds of inputs in the recording")
    assert [now for now, _ in inputs] == sorted(now for now, _ in inputs)
    assert led.counters.recording_dropped == 0
