"""What a link writes to a real Redis: reports, fault lines, records, sessions, and how it leaves."""

from __future__ import annotations

import asyncio
from typing import Any

from supervisor.wire.keys import Keys
from supervisor.wire.messages import FaultEvent, Goodbye, Report, SessionInfo
from supervisor.wire.vocabulary import FaultKind, WorkerState
from tests.support.link_fleet import SPECS, A, B, V, container, job, leader_hand
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from worker.link import EmbeddedLink, LinkSettings, Use

EVENT = FaultEvent(
    1,
    "somebody",
    "else",
    A,
    session="call-1",
    turn=3,
    kind=FaultKind.SERVER,
    status=503,
    message="overloaded",
)


async def test_reports_hold_what_all_the_containers_jobs_have_seen(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        async with job(link) as one, job(link) as two:
            for each in (one, two):
                attempt = each.started(A, 2_000)
                each.first_output(attempt, 120)
                each.succeeded(attempt, Use(tokens=7))
            one.failed(one.started(A, 2_000), FaultKind.RATE_LIMIT, retry_after_ms=10_000)
            two.abandoned(two.started(B, 2_000))
            two.started(B, 2_000)

            async def right() -> bool:
                a, b = await hand.counts(A), await hand.counts(B)
                return (a.started, a.ok, a.tokens, b.abandoned, b.in_flight) == (3, 2, 14, 1, 1)

            await wait_until(right, "the report adds up both jobs")
            counts = await hand.counts(A)
            assert counts.faults == {FaultKind.RATE_LIMIT: 1}
            assert counts.key_fp == "key-a"
            assert 8_000 < counts.retry_after_ms <= 10_000
            report = await hand.report()
            assert report is not None
            assert [c.target for c in report.targets] == [A, B, V]
            assert report.worker == "w1"
        assert one.closed


async def test_reports_come_with_the_fault_line_which_names_the_container(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await wait_until(lambda: link.reporter is not None and link.reporter.up, "redis is reached")
        caller.failed(caller.started(A, 2_000), FaultKind.SERVER, EVENT)
        await wait_until(lambda: hand.stream("faults", FaultEvent), "the line is written")
        (line,) = await hand.stream("faults", FaultEvent)
        assert (line.worker, line.host) == ("w1", link.identity.host)
        assert (line.session, line.turn, line.status, line.message) == ("call-1", 3, 503, "overloaded")
        assert abs(line.at_ms - await hand.now_ms()) < 5_000
        assert (await hand.counts(A)).trailing_faults == 1


async def test_reports_are_numbered_without_gaps_and_come_at_least_once_a_second(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await wait_until(hand.report, "a first report")
        before = link.core.report(0).seq  # this takes one number itself

        async def beats() -> bool:
            report = await hand.report()
            return report is not None and report.seq >= before + 2

        await wait_until(beats, "heartbeats without anything to say")
        numbers = [m.seq for m in await hand.inbox() if isinstance(m, Report)]
        assert numbers == sorted(set(numbers))


async def test_reports_lost_on_the_way_heal_because_counters_are_cumulative(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        link.failed(link.started(A, 2_000), FaultKind.SERVER)

        async def one() -> bool:
            return (await hand.counts(A)).started == 1

        await wait_until(one, "the first is there")
        await hand.redis.delete(hand.keys.inbox("w1"))  # as if a report had been lost
        link.succeeded(link.started(A, 2_000))

        async def both() -> bool:
            counts = await hand.counts(A)
            return (counts.started, counts.ok, counts.faults) == (2, 1, {FaultKind.SERVER: 1})

        await wait_until(both, "the next one holds all of it")


async def test_reports_say_that_an_attempt_hangs_before_it_fails(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=1.0, overdue_ms=150))
        await wait_until(lambda: not caller.rules.by_target[A].stale, "the job has the strategy")
        attempt = caller.started(A, 60_000)

        async def overdue(count: int) -> bool:
            counts = await hand.counts(A)
            return (counts.in_flight, counts.overdue) == (count, count)

        await wait_until(lambda: overdue(1), "it is overdue")
        assert (await hand.counts(A)).faults == {}
        caller.succeeded(attempt)
        await wait_until(lambda: overdue(0), "it is over")


async def test_record_says_who_the_worker_is_and_runs_out_by_itself(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:

        async def known() -> bool:
            info = await hand.info()
            return info is not None and info.state is WorkerState.RUNNING and set(info.targets) == {A, B, V}

        await wait_until(known, "the record is written")
        info = await hand.info()
        assert info is not None
        assert (info.worker, info.boot, info.pid) == ("w1", link.identity.boot, link.identity.pid)
        assert 0 < await hand.redis.ttl(hand.keys.worker("w1")) <= 15
        assert await hand.redis.zscore(hand.keys("workers"), "w1")
        link.set_state(WorkerState.DRAINING)

        async def draining() -> bool:
            info, report = await hand.info(), await hand.report()
            return bool(info and report and info.state is WorkerState.DRAINING and report.draining)

        await wait_until(draining, "record and report say that it drains")


async def test_sessions_are_kept_alive_by_the_link_and_end_in_a_stream(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        caller.session(SessionInfo("call-1", "not-me", 5, turns=1))
        key = hand.keys.session("call-1")
        await wait_until(lambda: hand.redis.exists(key), "the record is there")
        assert 0 < await hand.redis.ttl(key) <= 15
        assert await hand.redis.zscore(hand.keys("sessions"), "call-1")
        await hand.redis.expire(key, 2)  # nothing is said of the call for a while: the link renews it
        await wait_until(lambda: _ttl_above(hand.redis, key, 10), "the record was renewed")
        report = await hand.report()
        assert report is not None
        assert report.sessions == 1
        caller.session(SessionInfo("call-1", "not-me", 5, ended_at_ms=9, outcome="done"))
        await wait_until(lambda: hand.stream("sessions:ended", SessionInfo), "it ended")
        (ended,) = await hand.stream("sessions:ended", SessionInfo)
        assert (ended.session, ended.worker, ended.outcome) == ("call-1", "w1", "done")
        assert not await hand.redis.exists(key)
        assert await hand.redis.zscore(hand.keys("sessions"), "call-1") is None


async def _ttl_above(client: Any, key: str, least: int) -> bool:
    return int(await client.ttl(key)) > least


async def test_leaving_says_goodbye_after_the_last_report(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand:
        async with container(redis_url, fleet) as link:
            await wait_until(hand.info, "the record is there")
            link.succeeded(link.started(A, 2_000))
            link.started(A, 2_000)
        messages = await hand.inbox()
        assert messages[-1] == Goodbye("w1", link.identity.boot)
        last = messages[-2]
        assert isinstance(last, Report)
        counts = next(c for c in last.targets if c.target == A)
        assert (counts.started, counts.ok, counts.abandoned, counts.in_flight) == (2, 1, 1, 0)
        assert await hand.info() is None


async def test_a_container_is_two_connections_however_many_calls_it_holds(own_redis: RedisServer, fleet: str):
    url = own_redis.url
    async with (
        leader_hand(url, fleet) as hand,
        container(url, fleet) as link,
        job(link) as one,
        job(link) as two,
    ):
        one.succeeded(one.started(A, 2_000))
        two.succeeded(two.started(A, 2_000))

        async def counted() -> bool:
            return (await hand.counts(A)).ok == 2

        await wait_until(counted, "both are counted")
        assert await hand.connections() == 2


async def test_a_worker_id_used_twice_is_noticed_by_the_link(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as first:
        await wait_until(hand.info, "the first is there")
        async with container(redis_url, fleet) as second:
            reporter = first.reporter
            assert reporter is not None
            await wait_until(lambda: reporter.clashes > 0, "the first one sees the second", timeout=30)
            boots = {m.boot for m in await hand.inbox() if isinstance(m, Report)}
            assert boots == {first.identity.boot, second.identity.boot}
        assert reporter.up


async def test_embedded_link_does_the_same_in_the_process_that_calls(redis_url: str, fleet: str):
    link = EmbeddedLink(LinkSettings(fleet=fleet, worker="w1", redis_url=redis_url))
    await link.start()
    async with leader_hand(redis_url, fleet) as hand:
        link.hold(SPECS)
        link.failed(link.started(A, 2_000), FaultKind.SERVER, EVENT)

        async def counted() -> bool:
            return (await hand.counts(A)).trailing_faults == 1

        await wait_until(counted, "it is counted")
        await hand.lead()
        told: list[int] = []
        link.on_rules(lambda rules: told.append(rules.revision))
        await hand.write(hand.snapshot(A))
        await wait_until(lambda: told and link.rules.by_target[A].snapshot.admit == 0.0, "it obeys")
        await link.aclose()


async def test_nothing_a_link_writes_is_outside_the_table_of_keys(redis_url: str, fleet: str):
    """The keys' bounds are checked by the fixture; here that the table's names are what was used."""
    async with leader_hand(redis_url, fleet) as hand:
        async with container(redis_url, fleet) as link:
            link.session(SessionInfo("call-1", "w1", 5))
            link.failed(link.started(A, 2_000), FaultKind.SERVER, EVENT)
            await wait_until(lambda: hand.stream("faults", FaultEvent), "the fault is written")
            await asyncio.sleep(0)
        names = {k.decode() for k in await hand.redis.keys(f"{Keys(fleet).prefix}*")}
        known = {hand.keys.inbox("w1"), hand.keys("faults"), hand.keys("workers"), hand.keys("sessions"),
                 hand.keys.session("call-1"), hand.keys("sessions:ended")}  # fmt: skip
        assert names <= known
