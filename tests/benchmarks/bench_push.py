"""From the deciding fault to the last of 50 subscribers: through a real leader, beside a raw PUBLISH.

A round brings a target one report short of its verdict; then the deciding report is XADDed and the clock runs until
the last of 50 subscribers has decoded the wake-up that condemns it. The leader is a process of its own, as in a
fleet; the subscribers (bare sockets with hiredis) share two; CLOCK_MONOTONIC is one clock for all of them. The
floor in the same run: PUBLISH of the same bytes to the same subscribers. A leader has 20 targets at most, then a
new fleet begins. With fewer than four idle cores these processes, and Redis, wait for one another: then the floor
says how much of the time that is.

    python -m tests.benchmarks.bench_push [rounds]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis
import redis.asyncio

from supervisor.runtime.supervisor import office
from supervisor.settings import read_settings
from supervisor.store.clients import make_client
from supervisor.store.embedded import embedded_redis
from supervisor.wire.codec import decode, encode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import Keys
from supervisor.wire.messages import Snapshot, Wake
from supervisor.wire.vocabulary import State
from tests.support.replicas import events
from tests.support.reporting import RawWorker
from tests.support.waiting import wait_until

SUBSCRIBERS = 50
PROCESSES = 2
TARGETS = 20
FLOOR = "floor"
# The next report follows when no wake-up came for so long.
NEXT_AFTER_S = 0.05


class _Subscriber(asyncio.Protocol):
    """One connection; tells the count of its process of each wake-up that it has decoded."""

    def __init__(self, channels: list[str], count: _Count) -> None:
        self._channels, self._count = channels, count
        self._reader = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        words = [b"SUBSCRIBE", *(channel.encode() for channel in self._channels)]
        packed = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        cast("asyncio.Transport", transport).write(b"*%d\r\n" % len(words) + packed)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (found := self._reader.gets()) is not False:
            what, channel, body = cast("list[Any]", found)
            if what == b"subscribe":
                self._count.add("ready", len(self._channels))
                continue
            with suppress(WireError):
                for snapshot in decode(body, Wake).snapshots:
                    if snapshot.state is State.UNHEALTHY:
                        prefix = FLOOR if channel.endswith(FLOOR.encode()) else ""
                        self._count.add(prefix + snapshot.target)


class _Count:
    """Says when the last of a process's subscribers had something: one message, outside the time that is taken."""

    def __init__(self, subscribers: int, out: Connection) -> None:
        self._subscribers, self._out = subscribers, out
        self._seen: Counter[str] = Counter()

    def add(self, what: str, times: int = 1) -> None:
        now_mono = time.monotonic()
        self._seen[what] += 1
        if self._seen[what] == self._subscribers * times:
            self._out.send((what, now_mono))


def subscribe(url: str, channels: list[str], subscribers: int, out: Connection) -> None:
    """A process with so many subscribers."""

    async def run() -> None:
        loop, count, parts = asyncio.get_running_loop(), _Count(subscribers, out), urlsplit(url)
        for _ in range(subscribers):
            await loop.create_connection(
                lambda: _Subscriber(channels, count), parts.hostname or "", parts.port or 6379
            )
        await asyncio.Event().wait()

    asyncio.run(run())


def lead(url: str, fleet: str) -> None:
    """A process that leads."""

    async def run() -> None:
        async with office(read_settings(redis_url=url, fleet=fleet, checks=False, log_level="error")):
            await asyncio.Event().wait()

    asyncio.run(run())


class Arrivals:
    """What the subscribers' processes said."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes
        self._seen: dict[str, list[float]] = {}

    def last(self, what: str, timeout_s: float = 10.0) -> float:
        """When the last subscriber had it (CLOCK_MONOTONIC). Raises `TimeoutError`."""
        until = time.monotonic() + timeout_s
        while len(self._seen.get(what, ())) < len(self._pipes):
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(what)
            for pipe in wait(self._pipes, left_s):
                name, when = cast("tuple[str, float]", cast("Connection", pipe).recv())
                self._seen.setdefault(name, []).append(when)
        return max(self._seen.pop(what))


def percentiles(took_ms: list[float]) -> tuple[float, float]:
    """p50 and p99 in ms."""
    ordered = sorted(took_ms)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


async def measure(rounds: int) -> tuple[list[float], list[float]]:
    """Rounds of both, in turns: took (ms) through the leader, and through a raw PUBLISH."""
    fleets = [f"bench-{number}" for number in range((rounds + TARGETS - 1) // TARGETS)]
    wakes = [Keys(fleet)("wake") for fleet in fleets]
    channels = [*wakes, *(wake + FLOOR for wake in wakes)]
    ours: list[float] = []
    floor: list[float] = []
    async with embedded_redis() as url:
        context = multiprocessing.get_context("spawn")
        processes: list[Any] = []
        pipes: list[Connection] = []
        try:
            for _ in range(PROCESSES):
                mine, theirs = context.Pipe(duplex=False)
                args = (url, channels, SUBSCRIBERS // PROCESSES, theirs)
                processes.append(context.Process(target=subscribe, args=args, daemon=True))
                processes[-1].start()
                pipes.append(mine)
            arrivals = Arrivals(pipes)
            arrivals.last("ready", 60)
            client = make_client(url, 5.0)
            for fleet in fleets:
                leader = context.Process(target=lead, args=(url, fleet), daemon=True)
                processes.append(leader)
                leader.start()
                keys = Keys(fleet)
                await wait_until(partial(cast("Any", client).exists, keys("view")), "a leader", 60)
                for number in range(min(TARGETS, rounds - len(ours))):
                    took = await _round(client, keys, arrivals, f"llm:{fleet}:model-{number}", number)
                    ours.append(took[0])
                    floor.append(took[1])
                leader.kill()
                leader.join()
            await client.aclose()
        finally:
            for process in processes:
                process.kill()
                process.join()
    return ours, floor


async def _round(
    client: redis.asyncio.Redis, keys: Keys, arrivals: Arrivals, target: str, number: int
) -> tuple[float, float]:
    # A worker and a target of its own for each round: verdicts of earlier ones play no part.
    worker = RawWorker(client, keys, f"w{number}")
    worker.ok(target, 2)
    await worker.register()
    await worker.send()
    api = cast("Any", client)
    await wait_until(partial(api.hexists, keys("strategy"), target), "the target is known")
    worker.fault(target, times=3)
    await worker.send()
    began_by_run: dict[int, float] = {}
    while True:
        worker.fault(target)
        data = worker.report()
        began_by_run[3 + len(began_by_run) + 1] = time.monotonic()
        await worker.send(data)
        with suppress(TimeoutError):
            ended = arrivals.last(target, NEXT_AFTER_S)
            break
    # Which report decided depends on the rate, and a late wake-up must not pass for the next report's: the
    # verdict's own evidence says how long the run was.
    ours = ended - began_by_run[await wait_until(partial(_run_of, client, keys, target), "the verdict")]
    # The same bytes again, from the hash, without anybody between.
    raw = cast("bytes", await api.hget(keys("strategy"), target))
    wake = encode(Wake(1, number, (decode(raw, Snapshot),)))
    began = time.monotonic()
    await api.publish(keys("wake") + FLOOR, wake)
    floor = arrivals.last(FLOOR + target) - began
    await api.delete(keys.worker(worker.worker))
    return ours * 1000, floor * 1000


async def _run_of(client: redis.asyncio.Redis, keys: Keys, target: str) -> int:
    """The faults in a row that condemned the target, by its verdict's event; 0 before there is one."""
    for event in await events(client, keys, "verdict"):
        if event.target == target and event.after == State.UNHEALTHY:
            return int(event.evidence["run"])
    return 0


def main() -> None:
    """Print p50 and p99 of both, and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    load = os.getloadavg()[0]
    ours, floor = asyncio.run(measure(rounds))
    (p50, p99), (floor_p50, floor_p99) = percentiles(ours), percentiles(floor)
    print(f"deciding report -> last of {SUBSCRIBERS} subscribers, {rounds} rounds")
    print(f"  {os.cpu_count()} cores, load {load:.1f} before; {PROCESSES + 3} processes take part")
    print(f"  through the leader   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    print(f"  raw PUBLISH (floor)  p50 {floor_p50:6.2f} ms   p99 {floor_p99:6.2f} ms")
    print(f"  ratio                p50 {p50 / floor_p50:6.2f} x    p99 {p99 / floor_p99:6.2f} x")


if __name__ == "__main__":
    main()
