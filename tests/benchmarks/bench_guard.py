"""What guarding costs a call that goes well: admission and counting of the outcome, no I/O on the way.

Per call: the route, `started`, `first_output`, `succeeded`. Beside it, in the same run and interleaved: a bare
await, and the happy path of pybreaker, purgatory and interlock-cb around the same await. Ratios mean something,
absolute numbers only on a quiet machine. Run: python -m tests.benchmarks.bench_guard [rounds]
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import structlog

from supervisor.core.admission import Router
from worker.link import EmbeddedLink, LinkSettings, SocketLink, TargetSpec, Use

CALLS = 2_000
CHUNK = 200  # calls between two turns of the loop, in which the socket link writes
PRIMARY = "llm:groq:llama-3.3-70b-versatile"
SPECS = [TargetSpec(PRIMARY, 0, "0123456789abcdef"), TargetSpec("llm:openai:gpt-4.1-mini", 1)]
USE = Use(tokens=100)

CONTAINER = """
import asyncio, sys, structlog, logging
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
from worker.link import ContainerLink, LinkSettings
async def main():
    link = ContainerLink(LinkSettings(socket=sys.argv[1]))
    await link.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await link.aclose()
asyncio.run(main())
"""

Case = Callable[[int], Awaitable[float]]


async def work() -> int:
    """Stands for the request."""
    return 1


async def bare(calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        await work()
    return time.perf_counter() - began


def guarded(link: EmbeddedLink | SocketLink) -> Case:
    """Everything that a guarded call asks of the link, around the same await."""
    router = Router(SPECS)
    monotonic = time.monotonic

    async def run(calls: int) -> float:
        spent = 0.0
        for _ in range(calls // CHUNK):
            began = time.perf_counter()
            for _ in range(CHUNK):
                target = router.route(link.rules.by_target, "session", 1, monotonic()).targets[0]
                attempt = link.started(target, 2_000)
                await work()
                link.first_output(attempt, 120)
                link.succeeded(attempt, USE)
            spent += time.perf_counter() - began
            await asyncio.sleep(0)  # reports and frames are written here, off the call's path
        return spent

    return run


def routed(link: EmbeddedLink) -> Case:
    """Admission alone."""
    router = Router(SPECS)
    monotonic = time.monotonic

    async def run(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            router.route(link.rules.by_target, "session", 1, monotonic())
            await work()
        return time.perf_counter() - began

    return run


def whole(case: Case) -> Case:
    """The same with what the loop does between: encoding and writing too."""

    async def run(calls: int) -> float:
        began = time.perf_counter()
        await case(calls)
        return time.perf_counter() - began

    return run


async def peers() -> dict[str, Case]:
    """The other breakers around the same await, as their documentation has it."""
    import interlock
    import purgatory
    import pybreaker

    # None of the three ships complete types.
    py: Any = cast("Any", pybreaker).CircuitBreaker(fail_max=5, reset_timeout=30)
    factory: Any = cast("Any", purgatory).AsyncCircuitBreakerFactory()
    purge: Any = await factory.get_breaker("bench")
    lock: Any = cast("Any", interlock).CircuitBreaker(name="bench")

    async def with_pybreaker(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            with py.calling():
                await work()
        return time.perf_counter() - began

    async def with_purgatory(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            async with purge:
                await work()
        return time.perf_counter() - began

    async def with_interlock(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            async with lock:
                await work()
        return time.perf_counter() - began

    return {"pybreaker": with_pybreaker, "purgatory": with_purgatory, "interlock-cb": with_interlock}


async def measure(rounds: int, socket: str) -> None:
    embedded = EmbeddedLink(LinkSettings())
    await embedded.start()
    linked = SocketLink(LinkSettings(socket=socket))
    await linked.start(ready_within_s=10)
    if not linked.connected:
        raise SystemExit("the container did not start")
    for link in (embedded, linked):
        link.hold(SPECS)
    cases: dict[str, Case] = {
        "bare await": bare,
        "admission alone": routed(embedded),
        "guard, embedded link": guarded(embedded),
        "guard, socket link": guarded(linked),
        "guard, socket link, with its writes": whole(guarded(linked)),
        **await peers(),
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()
    for _ in range(rounds):
        for name, case in cases.items():
            seen[name].append(await case(CALLS) / CALLS * 1e9)
        gc.collect()
        await asyncio.sleep(0)
    gc.enable()
    # The best of many short rounds is what the code costs; the median shows what the machine did besides.
    best = {name: min(values) for name, values in seen.items()}
    floor = best["bare await"]
    ours = best["guard, embedded link"] - floor
    print(
        f"{f'ns per call, {rounds} rounds of {CALLS}':38}{'best':>9}{'added':>9}{'x guard':>9}{'median':>9}"
    )
    for name, values in seen.items():
        added = best[name] - floor
        print(f"{name:38}{best[name]:9.0f}{added:9.0f}{added / ours:9.2f}{statistics.median(values):9.0f}")
    print(f"events dropped by the socket link: {linked.dropped}")
    await linked.aclose()
    await embedded.aclose()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="sv-bench-") as folder:
        path = str(Path(folder) / "link.sock")
        with subprocess.Popen(
            [sys.executable, "-c", CONTAINER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as container:
            try:
                assert container.stdout is not None
                container.stdout.readline()
                asyncio.run(measure(rounds, path))
            finally:
                assert container.stdin is not None
                container.stdin.close()
                container.wait(timeout=10)


if __name__ == "__main__":
    main()
