"""Every reason for which reports may be missing: said once, counted, and nobody new is condemned for a while."""

from __future__ import annotations

from typing import Any, cast

import pytest
import redis.asyncio

from supervisor.core import engine
from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.saved import InboxMark, Saved, encode_saved
from supervisor.store import lease as leases
from supervisor.store import reads
from supervisor.store.follow import Follower, Read
from supervisor.wire.keys import Keys
from supervisor.wire.vocabulary import State
from tests.support.replicas import ask, events, leading, view
from tests.support.reporting import OTHER, RawWorker, snapshot
from tests.support.waiting import wait_until

Redis = redis.asyncio.Redis


async def leave_state(client: Redis, keys: Keys, data: bytes) -> None:
    """What a leader that is gone has left: its epoch, and these bytes as its state."""
    lease = await leases.acquire(client, keys, token="gone", owner="gone", ttl_ms=1_000)
    await leases.release(client, keys, leases.Fence("gone", lease.epoch))
    await cast("Any", client).set(keys("state"), data, ex=60)


def saved(at_ms: int, inboxes: dict[str, InboxMark] | None = None) -> bytes:
    return encode_saved(Saved(at_ms, 1, 7, engine.dump(engine.new_state(at_ms)), inboxes or {}))


async def said(client: Redis, keys: Keys, context: SupervisorContext) -> list[str]:
    """The reasons that were counted; each was also said, and the view shows that verdicts wait."""
    reasons = sorted(context.counters.gaps)

    async def shown() -> bool:
        told = {event.reason.partition(":")[0] for event in await events(client, keys, "gap")}
        picture = await view(client, keys)
        return told == set(reasons) and picture is not None and picture.settling_until_at_ms > picture.at_ms

    if reasons:
        await wait_until(shown, f"{reasons} in events and view")
    return reasons


async def condemns_nobody(client: Redis, keys: Keys, context: SupervisorContext) -> None:
    """As many faults as ever condemned a target change nothing."""
    worker = RawWorker(client, keys, "w9")
    worker.ok(OTHER)
    worker.ok()
    await worker.register()
    await worker.send()
    await wait_until(lambda: snapshot(client, keys), "the target is known")
    worker.fault(times=40)
    read = context.counters.reports_folded
    await worker.send()
    await wait_until(lambda: context.counters.reports_folded > read, "the faults are read")
    found = await snapshot(client, keys)
    assert found is not None
    assert found.state is State.HEALTHY


@pytest.mark.parametrize(
    ("shift_ms", "reason"), [(-30_000, "nobody_led"), (60_000, "time_back"), (-1_000, None)]
)
async def test_the_state_that_was_left_is_too_old_or_from_the_future(
    redis_client: Redis, redis_url: str, fleet: str, shift_ms: int, reason: str | None
) -> None:
    keys = Keys(fleet)
    at_ms = await reads.now_ms(redis_client)
    await leave_state(redis_client, keys, saved(at_ms + shift_ms))
    async with leading(redis_url, fleet) as context:
        assert await said(redis_client, keys, context) == ([reason] if reason else [])
        assert context.status().revision > 7
        if reason:
            await condemns_nobody(redis_client, keys, context)
        if reason == "time_back":
            # The engine goes on from where it was; what workers compare with their Redis's TIME does not.
            picture, found = await view(redis_client, keys), await snapshot(redis_client, keys)
            assert picture is not None
            assert picture.at_ms >= at_ms + shift_ms
            assert found is not None
            assert found.since_at_ms < at_ms + shift_ms


@pytest.mark.parametrize("data", [b"\x01half a sta", b"\x63of a later build"])
async def test_a_state_that_cannot_be_read(
    redis_client: Redis, redis_url: str, fleet: str, data: bytes
) -> None:
    keys = Keys(fleet)
    await leave_state(redis_client, keys, data)
    async with leading(redis_url, fleet) as context:
        assert await said(redis_client, keys, context) == ["state_lost"]


async def test_an_engine_state_that_cannot_be_read_inside_one_that_can(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    keys = Keys(fleet)
    at_ms = await reads.now_ms(redis_client)
    await leave_state(redis_client, keys, encode_saved(Saved(at_ms, 1, 7, b"\x01nonsense")))
    async with leading(redis_url, fleet) as context:
        assert await said(redis_client, keys, context) == ["state_lost"]


@pytest.mark.parametrize("trimmed", [True, False])
async def test_entries_that_nobody_had_read_are_gone(
    redis_client: Redis, redis_url: str, fleet: str, trimmed: bool
) -> None:
    keys = Keys(fleet)
    worker = RawWorker(redis_client, keys)
    worker.ok()
    await worker.register()
    await worker.send()
    api = cast("Any", redis_client)
    (first, _), *_ = await api.xrange(keys.inbox("w1"))
    await worker.send()
    if trimmed:
        await api.xtrim(keys.inbox("w1"), maxlen=1, approximate=False)
    mark = InboxMark(first.decode(), worker.boot)
    await leave_state(redis_client, keys, saved(await reads.now_ms(redis_client), {"w1": mark}))
    async with leading(redis_url, fleet) as context:
        assert await said(redis_client, keys, context) == (["trimmed"] if trimmed else [])
        assert context.counters.reports_folded == 1


async def test_a_stream_whose_ids_went_back_is_heard_again(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    """As after a failover to a server whose clock is behind."""
    keys = Keys(fleet)
    async with leading(redis_url, fleet) as context:
        worker = RawWorker(redis_client, keys)
        worker.ok()
        await worker.register()
        ahead_ms = await reads.now_ms(redis_client) + 3_600_000
        await worker.send(entry_id=f"{ahead_ms}-0")
        await wait_until(lambda: snapshot(redis_client, keys), "it is read")
        await cast("Any", redis_client).delete(keys.inbox("w1"))
        worker.ok(OTHER)
        await worker.send()
        await wait_until(lambda: snapshot(redis_client, keys, OTHER), "the next is read as well", 10)
        assert await said(redis_client, keys, context) == ["ids_back"]


async def test_operators_are_heard_again_after_ids_went_back(
    redis_client: Redis, redis_url: str, fleet: str
) -> None:
    keys = Keys(fleet)
    api = cast("Any", redis_client)
    async with leading(redis_url, fleet) as context:
        ahead_ms = await reads.now_ms(redis_client) + 3_600_000
        await api.xadd(keys("commands"), {"x": "y"}, id=f"{ahead_ms}-0", maxlen=1000)
        await wait_until(lambda: context.counters.unreadable, "it is read")
        await api.delete(keys("commands"))

        async def heard() -> bool:
            try:
                return (await ask(redis_client, keys, "drain", 0.5, worker="nobody")).status == 404
            except AssertionError:
                return False

        await wait_until(heard, "an answer", 10)
        # No report was missed by that.
        assert not context.counters.gaps


@pytest.mark.parametrize(("shift_ms", "reason"), [(60_000, "time_jump"), (-60_000, "time_back")])
async def test_time_jumps_while_it_leads(
    redis_client: Redis,
    redis_url: str,
    fleet: str,
    monkeypatch: pytest.MonkeyPatch,
    shift_ms: int,
    reason: str,
) -> None:
    """The one thing that is made up is TIME, as a server with another clock would answer after a failover."""
    keys = Keys(fleet)
    real, shift = Follower.read, 0

    async def shifted(self: Follower, *args: Any) -> Read:
        read = await real(self, *args)
        return read._replace(now_ms=read.now_ms + shift)

    monkeypatch.setattr(Follower, "read", shifted)
    async with leading(redis_url, fleet) as context:
        await wait_until(lambda: view(redis_client, keys), "a view")
        before = await view(redis_client, keys)
        assert before is not None
        shift = shift_ms
        await wait_until(lambda: context.counters.gaps, "it is noticed")
        assert await said(redis_client, keys, context) == [reason]
        after = await view(redis_client, keys)
        assert after is not None
        # Never backwards, whatever the server says.
        assert after.at_ms - before.at_ms >= max(0, shift_ms)
        await condemns_nobody(redis_client, keys, context)
        assert context.counters.gaps[reason] == 1
