"""How strategies reach the calls: wake-ups, reading all, what is refused, whose word counts."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.wire.codec import encode
from supervisor.wire.messages import Snapshot, Wake
from supervisor.wire.vocabulary import FaultKind, State
from tests.support.link_fleet import A, B, LeaderHand, container, job, leader_hand
from tests.support.waiting import wait_until
from worker.link import Link


def admits(link: Link, target: str = A) -> float:
    rule = link.rules.by_target.get(target)
    return -1.0 if rule is None else rule.snapshot.admit


async def listening(hand: LeaderHand) -> bool:
    answer = await hand.redis.pubsub_numsub(hand.keys("wake"))
    return int(answer[0][1]) > 0


async def test_a_wake_up_reaches_every_job_without_anything_being_polled(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as one,
        job(link) as two,
    ):
        await hand.lead()
        await wait_until(lambda: listening(hand), "the link listens")
        await hand.write(hand.snapshot(B))
        await wait_until(lambda: admits(one, B) == 0.0, "the first is read")
        reporter = link.reporter
        assert reporter is not None
        reads = reporter.strategy.reads
        told = [asyncio.Event(), asyncio.Event()]
        one.on_rules(lambda _: told[0].set())
        two.on_rules(lambda _: told[1].set())
        await hand.write(hand.snapshot(A, reason="dead"))
        async with asyncio.timeout(5):
            await asyncio.gather(*(event.wait() for event in told))
        assert (admits(one), admits(two), admits(link)) == (0.0, 0.0, 0.0)
        assert one.rules.by_target[A].snapshot.reason == "dead"
        assert reporter.strategy.reads == reads


async def test_the_strategy_is_read_at_start_and_acknowledged_in_the_next_report(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand:
        await hand.lead()
        await hand.write(hand.snapshot(A), wake=False)
        async with container(redis_url, fleet) as link, job(link) as caller:
            await wait_until(lambda: admits(caller) == 0.0, "it was read")

            async def acknowledged() -> bool:
                report = await hand.report()
                return bool(report and (report.epoch, report.revision) == (hand.epoch, hand.revision))

            await wait_until(acknowledged, "the report says so")


async def test_a_job_that_comes_later_has_the_rules_when_it_is_connected(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await hand.write(hand.snapshot(A))
        await wait_until(lambda: admits(link) == 0.0, "the container has it")
        async with job(link, hold=False) as caller:
            assert admits(caller) == 0.0


async def test_a_missed_wake_up_is_found_by_comparing_revisions(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await wait_until(lambda: listening(hand), "the link listens")
        await hand.write(hand.snapshot(A), wake=False)
        await wait_until(lambda: admits(link) == 0.0, "it was found")


async def test_a_gap_between_wake_ups_makes_the_link_read_all(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await wait_until(lambda: listening(hand), "the link listens")
        await hand.write(hand.snapshot(A))
        await wait_until(lambda: admits(link) == 0.0, "the first")
        await hand.write(hand.snapshot(B, admit=0.5), wake=False)
        await hand.write(hand.snapshot(A, admit=0.25))
        await wait_until(lambda: (admits(link), admits(link, B)) == (0.25, 0.5), "all of it", timeout=3)


async def test_a_leader_of_a_lower_epoch_is_not_obeyed_and_learns_the_highest(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(link) == 0.5, "the leader is obeyed")
        true_epoch, true_revision = hand.epoch, hand.revision
        hand.epoch -= 1_000
        await hand.write(hand.snapshot(A, admit=1.0))
        await hand.write(hand.snapshot(B, admit=0.0))
        await hand.redis.publish(hand.keys("wake"), encode(Wake(true_epoch, true_revision)))
        link.failed(link.started(A, 2_000), FaultKind.SERVER)

        async def reported() -> bool:
            return (await hand.counts(A)).started == 1

        await wait_until(reported, "a report after it")
        report = await hand.report()
        assert report is not None
        assert (report.epoch, report.revision) == (true_epoch, true_revision)
        assert (admits(link), admits(link, B)) == (0.5, 1.0)


async def test_a_snapshot_that_makes_no_sense_is_refused_with_its_reason_and_the_old_one_stays(
    redis_url: str, fleet: str
):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(caller) == 0.5, "the good one")
        await hand.write(hand.snapshot(A, first_output_ms=0), hand.snapshot(B, admit=0.25))

        async def refused() -> bool:
            report = await hand.report()
            return bool(report and report.refused.get(A) == "first_output_ms is 0")

        await wait_until(refused, "the report refuses it")
        assert (admits(caller), admits(caller, B)) == (0.5, 0.25)
        await hand.write(hand.snapshot(A, admit=0.75))

        async def healed() -> bool:
            report = await hand.report()
            return bool(report and not report.refused and admits(caller) == 0.75)

        await wait_until(healed, "a good one ends the refusal")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00",
        b"\x01",
        b"\x01\x93",
        b"\x02whatever",
        b"\xff" * 100_000,
        "ünicode".encode(),
        encode(Wake(2**53, 1)),
    ],
    ids=["empty", "zero", "version", "cut", "unknown", "huge", "text", "far-ahead"],
)
async def test_garbage_on_the_wake_channel_harms_nothing(redis_url: str, fleet: str, garbage: bytes):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await wait_until(lambda: listening(hand), "the link listens")
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(link) == 0.5, "the good one")
        for _ in range(20):
            await hand.redis.publish(hand.keys("wake"), garbage)
        await hand.write(hand.snapshot(A, admit=0.25))
        await wait_until(lambda: admits(link) == 0.25, "the next good one")
        reporter = link.reporter
        assert reporter is not None
        assert reporter.up
        assert reporter.strategy.reads < 10


async def test_garbage_in_the_strategy_itself_is_said_and_stepped_over(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        await hand.redis.hset(hand.keys("strategy"), B, b"\x01\xc1garbage")
        await hand.write(hand.snapshot(A, admit=0.5))
        await wait_until(lambda: admits(link) == 0.5, "the good one is applied")

        async def said() -> bool:
            report = await hand.report()
            return bool(report and report.refused.get(B) == "malformed snapshot")

        await wait_until(said, "the bad one is refused")


async def test_without_a_leader_a_strategy_runs_out_and_the_defaults_hold_until_one_is_back(
    redis_url: str, fleet: str
):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead(lease_ms=0)  # one that dies at once
        await hand.write(hand.snapshot(A, ttl_ms=3_000))
        await wait_until(lambda: admits(caller) == 0.0, "it is obeyed")
        await wait_until(lambda: caller.rules.by_target[A].stale, "its time to live is over")
        assert admits(caller) == 1.0
        await hand.redis.hset(hand.keys("leader"), "until_ms", await hand.now_ms() + 60_000)
        await wait_until(lambda: admits(caller) == 0.0, "a leader stands behind it again")


async def test_a_hold_off_holds_by_redis_time_not_by_this_hosts_clock(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead()
        until = await hand.now_ms() + 300_000
        await hand.write(hand.snapshot(A, State.LIMITED, admit=1.0, hold_off_until_at_ms=until))
        await wait_until(lambda: caller.rules.by_target[A].hold_off_until_mono > 0, "it arrived")
        left_s = caller.rules.by_target[A].hold_off_until_mono - link.core.clock()
        assert 270 < left_s <= 300.1


async def test_a_hundred_links_worth_of_targets_is_bounded(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        many = [Snapshot(f"llm:p:m{n}", hand.revision + 1, hand.epoch, State.HEALTHY) for n in range(300)]
        await hand.write(*many, wake=False)
        link_reader = link.reporter
        assert link_reader is not None
        link_reader.read_all()
        await wait_until(lambda: len(link.core.book.snapshots) > 200, "read")
        assert len(link.core.book.snapshots) <= 257
        assert set(link.rules.by_target) == {A, B, "tts:cartesia:v"}
        await hand.redis.delete(hand.keys("strategy"))  # no leader would write so many
