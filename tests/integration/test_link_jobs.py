"""Job processes and the container's socket: deaths, slow readers, nonsense, drains and probes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from supervisor.wire.messages import Directive, ProbeResult, SessionInfo
from supervisor.wire.vocabulary import DirectiveKind, FaultKind, Role
from tests.support.link_fleet import SPECS, A, B, LeaderHand, alone, container, job, leader_hand
from tests.support.waiting import wait_until
from worker.link import ContainerLink, EmbeddedLink, LinkHolder, LinkSettings, SocketLink, connect, open_link
from worker.link.client import MAX_QUEUE
from worker.link.strategy import Applied

CHILD = """
import asyncio, sys
from supervisor.wire.messages import SessionInfo
from worker.link import LinkSettings, open_link
from tests.support.link_fleet import SPECS, A

async def main():
    link = await open_link(LinkSettings(worker="child", socket=sys.argv[1]))
    link.hold(SPECS)
    link.session(SessionInfo("call-9", "child", 5))
    link.started(A, 60_000)
    link.succeeded(link.started(A, 2_000))
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def good(directive: Directive) -> ProbeResult:
    return ProbeResult("?", directive.id, directive.target, None, 120, 400)


async def test_a_job_process_that_is_killed_leaves_nothing_in_the_air(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, link.socket_path, cwd=Path(__file__).parents[2]
        )
        try:
            entry = link.core.entries[A]
            await wait_until(lambda: (entry.ok, entry.in_flight) == (1, 1), "the child calls", timeout=20)
            await wait_until(lambda: hand.redis.exists(hand.keys.session("call-9")), "its session is there")
            os.kill(child.pid, signal.SIGKILL)
            await wait_until(lambda: link.jobs == 0, "it is gone")
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()

        async def landed() -> bool:
            counts = await hand.counts(A)
            return (counts.started, counts.ok, counts.abandoned, counts.in_flight) == (2, 1, 1, 0)

        await wait_until(landed, "its attempt counts against nobody")
        await wait_until(lambda: hand.stream("sessions:ended", SessionInfo), "its session is ended")
        (ended,) = await hand.stream("sessions:ended", SessionInfo)
        assert (ended.session, ended.outcome) == ("call-9", "lost")


async def test_a_faults_breaker_is_the_containers_so_every_job_learns_of_it(fleet: str):
    async with alone(fleet) as link, job(link) as one, job(link) as two, job(link) as three:
        for each in (one, two, three):
            each.failed(each.started(A, 2_000), FaultKind.SERVER)

        def all_know() -> bool:
            return all(each.rules.by_target[A].local_open_until_mono > 0 for each in (one, two, three))

        await wait_until(all_know, "all three know")


async def test_a_job_without_its_container_guards_alone_and_is_heard_again(fleet: str, tmp_path: Path):
    path = str(tmp_path / "link.sock")
    first = ContainerLink(LinkSettings(fleet=fleet, worker="w1", socket=path))
    await first.start()
    first.hold(SPECS)
    async with job(first) as caller:
        waiting = caller.started(B, 60_000)
        await wait_until(lambda: first.core.entries[B].in_flight == 1, "the container sees it")
        await first.aclose()
        await wait_until(lambda: not caller.connected, "the container is gone")
        for _ in range(3):
            caller.failed(caller.started(A, 2_000), FaultKind.SERVER)
        assert caller.rules.by_target[A].local_open_until_mono > 0
        second = ContainerLink(LinkSettings(fleet=fleet, worker="w2", socket=path))
        await second.start()
        second.hold(SPECS)
        try:
            await wait_until(lambda: caller.connected, "another container is there")
            assert caller.worker == "w2"
            await wait_until(lambda: second.core.entries[A].started == 3, "it hears what happened")
            assert second.core.entries[A].trailing_faults == 3
            assert second.core.entries[B].in_flight == 1
            caller.succeeded(waiting)
            await wait_until(lambda: second.core.entries[B].ok == 1, "and how it ended")
            assert second.core.entries[B].started == 1
        finally:
            await second.aclose()


async def test_a_job_started_without_any_container_is_not_held_up(fleet: str, tmp_path: Path):
    link = SocketLink(LinkSettings(fleet=fleet, socket=str(tmp_path / "nobody.sock")))
    await link.start(ready_within_s=0.05)
    link.hold(SPECS)
    assert set(link.rules.by_target) == {s.id for s in SPECS}
    for _ in range(3):
        link.failed(link.started(A, 2_000), FaultKind.SERVER)
    assert link.rules.by_target[A].local_open_until_mono > 0
    await link.aclose()


async def test_an_event_that_cannot_be_written_costs_no_other_one(fleet: str, tmp_path: Path):
    path = str(tmp_path / "link.sock")
    caller = SocketLink(LinkSettings(fleet=fleet, socket=path))
    await caller.start(ready_within_s=0.01)
    caller.succeeded(caller.started(A, 2_000))
    caller.started("llm:half-an-emoji:\ud83d", 2_000)
    caller.succeeded(caller.started(A, 2_000))
    link = ContainerLink(LinkSettings(fleet=fleet, worker="w1", socket=path))
    await link.start()
    try:
        await wait_until(
            lambda: A in link.core.entries and link.core.entries[A].ok == 2, "the others arrived"
        )
        assert caller.dropped >= 1
    finally:
        await caller.aclose()
        await link.aclose()


async def test_a_jobs_queue_is_bounded_and_what_falls_out_is_counted_and_said(fleet: str, tmp_path: Path):
    path = str(tmp_path / "link.sock")
    caller = SocketLink(LinkSettings(fleet=fleet, socket=path))
    await caller.start(ready_within_s=0.01)
    for _ in range(MAX_QUEUE // 2 + 500):
        caller.succeeded(caller.started(A, 2_000))
    assert caller.dropped == 1_000
    link = ContainerLink(LinkSettings(fleet=fleet, worker="w1", socket=path))
    await link.start()
    try:
        await wait_until(lambda: link.server.job_drops == 1_000, "the container was told")
        # Outcomes name their target, so the ones whose start fell out still count.
        await wait_until(lambda: link.core.entries[A].ok == MAX_QUEUE // 2, "the rest arrived")
        assert link.core.entries[A].in_flight == 0
    finally:
        await caller.aclose()
        await link.aclose()


async def test_a_job_that_does_not_read_holds_up_nobody_and_gets_the_newest_rules(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as good_job,
    ):
        reader, writer = await asyncio.open_unix_connection(link.socket_path, limit=1)
        await wait_until(lambda: link.jobs == 2, "the slow one is there")
        await hand.lead()
        for step in range(2_000):
            link.core.book.snapshots[A] = hand.snapshot(A, admit=step / 2_000)
            link.core.strategy(Applied.CHANGED)
        assert len(link.core.rules.by_target) == 3
        await wait_until(
            lambda: good_job.rules.by_target[A].snapshot.admit == 1_999 / 2_000, "the good one has the newest"
        )
        slow = link.server.jobs[max(link.server.jobs)]
        assert slow.backlog < 1_000_000
        writer.close()
        del reader
        await wait_until(lambda: link.jobs == 1, "the slow one left")


@pytest.mark.parametrize("nonsense", [b"\xff" * 64, b"\x00\x00\x00\x03abc", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_job_that_talks_nonsense_is_cut_off_alone(fleet: str, nonsense: bytes):
    async with alone(fleet) as link, job(link) as caller:
        reader, writer = await asyncio.open_unix_connection(link.socket_path)
        writer.write(nonsense)
        async with asyncio.timeout(5):
            while await reader.read(65_536):
                pass
        writer.close()
        await wait_until(lambda: link.jobs == 1, "only the good one is left")
        caller.succeeded(caller.started(A, 2_000))
        await wait_until(lambda: link.core.entries[A].ok == 1, "and it is heard")
        assert link.server.unreadable == 1


# ---------------------------------------------------------------- directives


async def test_a_probe_goes_to_a_job_that_holds_the_target_and_its_result_back(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as one,
        job(link) as two,
    ):
        await hand.lead()
        ran: list[str] = []

        def prober(name: str):
            async def run(directive: Directive) -> ProbeResult:
                ran.append(name)
                return await good(directive)

            return run

        one.on_probe(Role.LLM, prober("one"))
        two.on_probe(Role.LLM, prober("two"))
        await wait_until(lambda: sum(Role.LLM in p.roles for p in link.desk.probers) == 2, "both offer")
        for number in range(1, 3):
            await hand.direct("w1")
            await wait_until(lambda n=number: _results(hand, n), "the result")
        assert sorted(ran) == ["one", "two"]
        first = (await hand.results())[0]
        assert (first.worker, first.directive, first.target, first.fault) == ("w1", "d1", A, None)
        assert (first.first_output_ms, first.total_ms) == (120, 400)


async def _results(hand: LeaderHand, count: int) -> bool:
    return len(await hand.results()) >= count


async def test_a_probe_that_cannot_be_run_ends_as_local(redis_url: str, fleet: str):
    async with (
        leader_hand(redis_url, fleet) as hand,
        container(redis_url, fleet) as link,
        job(link) as caller,
    ):
        await hand.lead()
        await hand.direct("w1")
        await wait_until(lambda: _results(hand, 1), "nobody runs probes")

        async def broken(_: Directive) -> ProbeResult:
            raise TypeError("sk-secret-key")

        stop = caller.on_probe(Role.LLM, broken)
        await wait_until(lambda: any(Role.LLM in p.roles for p in link.desk.probers), "offered")
        await hand.direct("w1")
        await wait_until(lambda: _results(hand, 2), "the handler raised")
        stop()

        async def for_ever(_: Directive) -> ProbeResult:
            await asyncio.Event().wait()
            raise AssertionError

        caller.on_probe(Role.LLM, for_ever)
        await hand.direct("w1", within_ms=700)
        await wait_until(lambda: _results(hand, 3), "the handler hangs")
        results = await hand.results()
        assert [r.fault for r in results] == [FaultKind.LOCAL] * 3
        assert all("secret" not in r.message for r in results)


async def test_a_probe_whose_job_dies_ends_as_local(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand, container(redis_url, fleet) as link:
        await hand.lead()
        async with job(link) as caller:
            begun = asyncio.Event()

            async def for_ever(_: Directive) -> ProbeResult:
                begun.set()
                await asyncio.Event().wait()
                raise AssertionError

            caller.on_probe(Role.LLM, for_ever)
            await wait_until(lambda: any(Role.LLM in p.roles for p in link.desk.probers), "offered")
            await hand.direct("w1", within_ms=60_000, budget_ms=50_000)
            async with asyncio.timeout(5):
                await begun.wait()
        await wait_until(lambda: _results(hand, 1), "it ends")
        assert (await hand.results())[0].fault is FaultKind.LOCAL


async def test_directives_that_are_late_old_or_unreadable_are_not_carried_out(redis_url: str, fleet: str):
    async with leader_hand(redis_url, fleet) as hand:
        await hand.lead()
        drained: list[int] = []
        await hand.direct("w1", DirectiveKind.DRAIN)  # meant for the worker that had this id before
        async with container(redis_url, fleet) as link:
            link.on_drain(lambda: drained.append(1))
            await hand.write(hand.snapshot(A))
            await wait_until(lambda: link.rules.epoch == hand.epoch, "it follows the leader")
            await hand.direct("w1", DirectiveKind.DRAIN, within_ms=-1)
            await hand.direct("w1", DirectiveKind.DRAIN, epoch=hand.epoch - 1)
            await hand.put_directive("w1", b"\x01garbage")
            await hand.direct("w1", id="last")
            await wait_until(lambda: _results(hand, 1), "all were looked at")
            assert drained == []
            await hand.direct("w1", DirectiveKind.DRAIN)
            await wait_until(lambda: drained == [1], "a good one is")


# ---------------------------------------------------------------- one link a process


async def test_connect_gives_the_process_its_one_link_until_the_last_user_leaves(fleet: str):
    async with alone(fleet) as container_link:
        holder = LinkHolder()
        settings = LinkSettings(fleet=fleet, socket=container_link.socket_path)
        one, two = await asyncio.gather(holder.connect(settings), holder.connect(settings))
        assert one is two
        assert isinstance(one, SocketLink)
        await wait_until(lambda: container_link.jobs == 1, "one connection")
        await one.aclose()
        assert not two.closed
        await two.aclose()
        assert two.closed
        three = await holder.connect(settings)
        assert three is not one
        await three.aclose()


async def test_open_link_picks_by_what_there_is(fleet: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("WORKER_LINK_SOCKET", "REDIS_URL", "WORKER_FLEET", "WORKER_ID"):
        monkeypatch.delenv(name, raising=False)
    local = await open_link()
    assert isinstance(local, EmbeddedLink)
    assert local.reporter is None
    await local.aclose()
    async with alone(fleet) as container_link:
        monkeypatch.setenv("WORKER_LINK_SOCKET", container_link.socket_path)
        linked = await connect()
        assert isinstance(linked, SocketLink)
        assert linked.worker == "w1"
        await linked.aclose()
