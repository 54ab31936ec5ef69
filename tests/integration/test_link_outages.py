"""Redis dying, freezing and coming back empty under a link: calls go on, and all converges."""

from __future__ import annotations

import asyncio
import time

import pytest

from supervisor.wire.messages import FaultEvent
from supervisor.wire.vocabulary import FaultKind
from tests.support.link_fleet import SPECS, A, B, LeaderHand, container, job, leader_hand
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import wait_until
from worker.link import ContainerLink, EmbeddedLink, Link, LinkSettings
from worker.link.listener import WakeListener

LATE_S = 20.0


def up(link: ContainerLink) -> bool:
    return link.reporter is not None and link.reporter.up


def admits(link: Link, target: str = A) -> float:
    rule = link.rules.by_target.get(target)
    return -1.0 if rule is None else rule.snapshot.admit


def locally_open(link: Link, target: str = A) -> bool:
    return link.rules.by_target[target].local_open_until_mono > time.monotonic()


async def test_redis_down_at_start_then_calls_are_guarded_and_it_is_found_when_it_comes(fleet: str):
    server = RedisServer()
    async with container(server.url, fleet) as link, job(link) as caller:
        for _ in range(3):
            caller.failed(caller.started(A, 2_000), FaultKind.SERVER)
        await wait_until(lambda: locally_open(caller), "the local breaker opened")
        assert not up(link)
        with server:
            async with leader_hand(server.url, fleet) as hand:

                async def told() -> bool:
                    return (await hand.counts(A)).trailing_faults == 3

                await wait_until(told, "the report tells what happened before", timeout=LATE_S)
                await hand.lead()
                await hand.write(hand.snapshot(B))
                await wait_until(lambda: admits(caller, B) == 0.0, "strategies arrive", timeout=LATE_S)


async def test_no_redis_url_at_all_is_the_local_breaker_alone(fleet: str):
    link = EmbeddedLink(LinkSettings(fleet=fleet, worker="w1"))
    await link.start()
    link.hold(SPECS)
    for _ in range(3):
        link.failed(link.started(A, 2_000), FaultKind.CONNECT, FaultEvent(0, "", "", A))
    assert locally_open(link)
    assert not locally_open(link, B)
    assert len(link.outbox) == 0
    await link.aclose()


async def test_closing_survives_a_cancellation_that_gets_lost(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, fleet: str
):
    """`asyncio.wait_for` up to Python 3.11, which redis-py sends with, may lose one."""
    lost: list[bool] = []

    async def loses_one(_: WakeListener) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    monkeypatch.setattr(WakeListener, "run", loses_one)
    async with container(redis_url, fleet) as link:
        await wait_until(lambda: up(link), "redis is reached")
    assert lost
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("link-")]


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_redis_gone_then_the_last_strategy_holds_counts_go_on_and_all_converges(
    own_redis: RedisServer, fleet: str, how: str
):
    async with (
        leader_hand(own_redis.url, fleet) as hand,
        container(own_redis.url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(caller) == 0.5, "the strategy is there")
        if how == "kill":
            own_redis.kill()
        else:
            own_redis.freeze()
        await wait_until(lambda: not up(link), "the link knows that Redis is gone")
        for _ in range(3):
            caller.failed(caller.started(B, 2_000), FaultKind.SERVER, FaultEvent(0, "", "", B))
        # No other target is fully admitted, so B stays; but all of it is counted.
        await wait_until(lambda: link.core.entries[B].trailing_faults == 3, "it is counted")
        assert admits(caller) == 0.5
        if how == "kill":
            own_redis.start()
            await hand.forget_connections()
        else:
            own_redis.thaw()
        await wait_until(lambda: up(link), "Redis is back", timeout=LATE_S)

        async def converged() -> bool:
            counts = await hand.counts(B)
            return (counts.started, counts.trailing_faults) == (3, 3)

        await wait_until(converged, "the report holds it all", timeout=LATE_S)
        await wait_until(lambda: _length(hand, 3), "the fault lines came too, none lost", timeout=LATE_S)
        await hand.lead()
        hand.revision = 10
        await hand.write(hand.snapshot(A, admit=0.25))
        await wait_until(lambda: admits(caller) == 0.25, "strategies arrive again", timeout=LATE_S)


async def _length(hand: LeaderHand, least: int) -> bool:
    return len(await hand.stream("faults", FaultEvent)) >= least


async def test_redis_emptied_then_the_worker_introduces_itself_again_and_keeps_its_strategy(
    own_redis: RedisServer, fleet: str
):
    async with leader_hand(own_redis.url, fleet) as hand, container(own_redis.url, fleet) as link:
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(link) == 0.5, "the strategy is there")
        await wait_until(hand.info, "the record is there")
        await hand.redis.flushall()

        async def registered() -> bool:
            return bool(
                await hand.info()
                and await hand.report()
                and await hand.redis.zscore(hand.keys("workers"), "w1")
            )

        await wait_until(registered, "it is registered again")
        assert admits(link) == 0.5
        # A leader that starts below what this worker has seen is not obeyed; one above is.
        old = hand.epoch
        hand.epoch, hand.revision = 5, 0
        await hand.write(hand.snapshot(A, admit=0.9))
        hand.epoch = old + 1
        await hand.write(hand.snapshot(A, admit=0.25))
        await wait_until(lambda: admits(link) == 0.25, "the higher epoch is obeyed")


async def test_redis_that_refuses_our_commands_is_said_and_calls_go_on(own_redis: RedisServer, fleet: str):
    async with leader_hand(own_redis.url, fleet) as hand, container(own_redis.url, fleet) as link:
        await wait_until(lambda: up(link), "the link is up")
        await hand.redis.delete(hand.keys.inbox("w1"))
        await hand.redis.set(hand.keys.inbox("w1"), "not a stream")
        link.failed(link.started(A, 2_000), FaultKind.SERVER)
        await hand.lead()
        await hand.write(hand.snapshot(B))
        await wait_until(lambda: admits(link, B) == 0.0, "strategies still arrive")
        await hand.redis.delete(hand.keys.inbox("w1"))

        async def counted() -> bool:
            return (await hand.counts(A)).started == 1

        await wait_until(counted, "and reports, once they may")


async def test_a_redis_that_is_no_redis_keeps_nobody_waiting(fleet: str):
    port = free_port()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = await asyncio.start_server(mute, "127.0.0.1", port)
    try:
        async with container(f"redis://127.0.0.1:{port}/0", fleet) as link:
            for _ in range(3):
                link.failed(link.started(A, 2_000), FaultKind.SERVER)
            assert locally_open(link)
            await asyncio.sleep(0)
            assert not up(link)
    finally:
        server.close()
