"""From the deciding fault to the last of 50 subscribers: through a real leader, beside a raw PUBLISH.

A round brings a target one report short of its verdict; then the deciding report is XADDed and the clock runs until
the last of 50 subscribers has decoded the wake-up that condemns it. Subscribers share two processes; CLOCK_MONOTONIC
is one clock for all of them. The floor in the same run: PUBLISH of bytes of the same size to the same subscribers.

    python -m tests.benchmarks.bench_push [rounds]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

import redis
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
from tests.support.reporting import RawWorker
from tests.support.waiting import wait_until

SUBSCRIBERS = 50
PROCESSES = 2
FLOOR = "floor"
# A report that has not decided within this has not decided.
DECIDES_WITHIN_S = 0.1


def subscribe(url: str, channel: str, count: int, out: Connection) -> None:
    """A process with `count` subscribers: sends (what, when) for each wake-up each of them has decoded."""
    asyncio.run(_subscribe(url, channel, count, out))


async def _subscribe(url: str, channel: str, count: int, out: Connection) -> None:
    client = cast("Any", redis.asyncio.Redis).from_url(url, protocol=2)
    ready = asyncio.Semaphore(0)

    async def one() -> None:
        async with client.pubsub() as pubsub:
            await pubsub.subscribe(channel, channel + FLOOR)
            async for message in pubsub.listen():
                if message["type"] == "subscribe":
                    ready.release()
                    continue
                what = ""
                with suppress(WireError):
                    for snapshot in decode(message["data"], Wake).snapshots:
                        if snapshot.state is State.UNHEALTHY:
                            what = snapshot.target
                if message["channel"].endswith(FLOOR.encode()):
                    what = FLOOR + what
                if what:
                    out.send((what, time.monotonic()))

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    for _ in range(2 * count):
        await ready.acquire()
    out.send(("ready", 0.0))
    await asyncio.gather(*tasks)


class Arrivals:
    """What the subscribers said, by what it was about."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes
        self._seen: dict[str, list[float]] = defaultdict(list)

    async def last(self, what: str, count: int, timeout_s: float = 10.0) -> float:
        """When the last of `count` had it (CLOCK_MONOTONIC)."""
        if not await self._reach(what, count, timeout_s):
            raise TimeoutError(f"{len(self._seen[what])} of {count} for {what}")
        return max(self._seen.pop(what))

    async def any(self, what: str, timeout_s: float) -> bool:
        """Whether somebody has it, or gets it within so long."""
        return await self._reach(what, 1, timeout_s)

    async def _reach(self, what: str, count: int, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while len(self._seen[what]) < count:
            if time.monotonic() > until:
                return False
            for pipe in self._pipes:
                while pipe.poll():
                    name, when = cast("tuple[str, float]", pipe.recv())
                    self._seen[name].append(when)
            await asyncio.sleep(0.001)
        return True


def percentiles(took_ms: list[float]) -> tuple[float, float]:
    """p50 and p99 in ms."""
    ordered = sorted(took_ms)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


async def measure(rounds: int) -> tuple[list[float], list[float]]:
    """Rounds of both, in turns: took (ms) through the leader, and through a raw PUBLISH."""
    keys = Keys("bench")
    async with embedded_redis() as url:
        context = multiprocessing.get_context("spawn")
        pipes: list[Connection] = []
        processes: list[Any] = []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe(duplex=False)
            args = (url, keys("wake"), SUBSCRIBERS // PROCESSES, theirs)
            process = context.Process(target=subscribe, args=args, daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        try:
            arrivals = Arrivals(pipes)
            await arrivals.last("ready", PROCESSES, 60)
            settings = read_settings(redis_url=url, fleet="bench", checks=False)
            client = make_client(url, 5.0)
            async with office(settings):
                found = await _rounds(client, keys, arrivals, rounds)
            await client.aclose()
            return found
        finally:
            for process in processes:
                process.kill()
                process.join()


async def _rounds(
    client: redis.asyncio.Redis, keys: Keys, arrivals: Arrivals, rounds: int
) -> tuple[list[float], list[float]]:
    ours: list[float] = []
    floor: list[float] = []
    for number in range(rounds):
        target = f"llm:bench:model-{number}"
        # A worker and a target of its own for each round: verdicts of earlier ones play no part.
        worker = RawWorker(client, keys, f"w{number}")
        worker.ok(target, 2)
        await worker.register()
        await worker.send()
        api = cast("Any", client)
        await wait_until(partial(api.hexists, keys("strategy"), target), "the target is known")
        began = 0.0
        while not await arrivals.any(target, DECIDES_WITHIN_S):
            # Which report decides depends on the rate; it is the last one before the first wake-up.
            worker.fault(target)
            data = worker.report()
            began = time.monotonic()
            await worker.send(data)
        ours.append((await arrivals.last(target, SUBSCRIBERS) - began) * 1000)
        # The same bytes again, from the hash, without anybody between.
        raw = cast("bytes", await api.hget(keys("strategy"), target))
        wake = encode(Wake(1, number, (decode(raw, Snapshot),)))
        began = time.monotonic()
        await api.publish(keys("wake") + FLOOR, wake)
        floor.append((await arrivals.last(FLOOR + target, SUBSCRIBERS) - began) * 1000)
        await api.delete(keys.worker(worker.worker))
    return ours, floor


def main() -> None:
    """Print p50 and p99 of both, and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    ours, floor = asyncio.run(measure(rounds))
    (p50, p99), (floor_p50, floor_p99) = percentiles(ours), percentiles(floor)
    print(f"deciding report -> last of {SUBSCRIBERS} subscribers, {rounds} rounds")
    print(f"  through the leader   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    print(f"  raw PUBLISH (floor)  p50 {floor_p50:6.2f} ms   p99 {floor_p99:6.2f} ms")
    print(f"  ratio                p50 {p50 / floor_p50:6.2f} x    p99 {p99 / floor_p99:6.2f} x")


if __name__ == "__main__":
    main()
