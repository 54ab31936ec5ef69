"""How many reports one core reads and folds a second, beside raw XREAD of the same stream in the same run.

A real server holds the reports; each round reads all of them (1,000 entries a command), once only reading, once
decoding as well, once decoding and folding (`decode_worker`, `engine.step`, a `Tick` every 500 reports), once with
all that a leader does about a report (boots and cursors, history, the recording). CPU time of this process: the
server's own work is not ours. Run: python -m tests.benchmarks.bench_fold [reports] [rounds]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, cast

from supervisor.core import engine
from supervisor.core.inputs import Input, Reported, Tick, TookOver
from supervisor.runtime.engine_port import real_engine
from supervisor.runtime.reign import Reign
from supervisor.runtime.supervisor import open_context
from supervisor.settings import read_settings
from supervisor.store.lease import Fence
from supervisor.wire.codec import decode_worker, encode
from supervisor.wire.keys import FIELD
from supervisor.wire.messages import Report, TargetCounts
from tests.support.redis_server import RedisServer, sync_client

WORKERS = 50
PAGE = 1_000
KEY = "bench"
NOW_MS = 1_700_000_000_000
TARGETS = ("llm:groq:llama-3.3-70b-versatile", "stt:cartesia:ink-2", "tts:cartesia:sonic-3")


def make_reports(n: int, targets: int) -> list[bytes]:
    """A healthy fleet's reports: every counter moves, one attempt is under way."""
    reports: list[bytes] = []
    for i in range(n):
        turn = i // WORKERS + 1
        histogram = (0, 0, 1, 2, 2 * turn, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        counts = tuple(
            TargetCounts(
                target,
                started=2 * turn,
                ok=2 * turn - 1,
                first_outputs=2 * turn - 1,
                in_flight=1,
                histogram=histogram,
                tokens=100 * turn,
                key_fp="0123456789abcdef",
            )
            for target in TARGETS[:targets]
        )
        reports.append(
            encode(Report(f"worker-{i % WORKERS:03d}", "boot", turn, 3, "host", counts, sessions=20))
        )
    return reports


def fill(client: Any, reports: list[bytes]) -> None:
    client.delete(KEY)
    for begin in range(0, len(reports), PAGE):
        with client.pipeline(transaction=False) as pipe:
            for data in reports[begin : begin + PAGE]:
                pipe.xadd(KEY, {FIELD: data})
            pipe.execute()


def read(client: Any, take: Callable[[bytes], object]) -> float:
    """CPU seconds for reading the whole stream and handing each entry to `take`."""
    field = FIELD.encode()
    cursor: bytes = b"0"
    began = time.process_time()
    while True:
        answer = cast(
            "list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", client.xread({KEY: cursor}, PAGE)
        )
        if not answer:
            return time.process_time() - began
        for cursor, entry in answer[0][1]:  # noqa: B007  # the last id is where the next page begins
            take(entry[field])


def folder() -> Callable[[bytes], object]:
    state = engine.new_state(NOW_MS)
    engine.step(state, TookOver(1, 0), NOW_MS)
    seen = 0

    def take(data: bytes) -> None:
        nonlocal seen
        seen += 1
        report = decode_worker(data)
        engine.step(state, Reported(cast("Report", report), 3), NOW_MS + seen // 5)
        if seen % 500 == 0:
            engine.step(state, Tick(), NOW_MS + seen // 5)

    return take


def leader() -> Callable[[bytes], object]:
    """What a leader does about each entry: inbox, engine, history, recording (batches of half a second)."""
    context, _ = open_context(read_settings(redis_url="redis://127.0.0.1:1/0", fleet="bench", checks=False))
    nothing = cast("Any", None)  # neither client nor follower is touched by what is measured
    reign = Reign(context, real_engine(), nothing, nothing, Fence("bench", 1), None)
    reign.state = reign.engine.new_state()
    reign.clock.read(NOW_MS, 0.0)
    reign.feed(TookOver(1, 0))
    workers = [f"worker-{n:03d}" for n in range(WORKERS)]
    reign.inboxes.sync(workers, 0.0)
    streams = [context.keys.inbox(worker).encode() for worker in workers]
    field = FIELD.encode()
    seen = 0

    def take(data: bytes) -> None:
        nonlocal seen
        now_ms = NOW_MS + seen // 5
        if seen % 500 == 0:
            reign.clock.read(now_ms, (now_ms - NOW_MS) / 1000)
            reign.feed(Tick())
        item = reign.inboxes.take(streams[seen % WORKERS], b"%d-0" % now_ms, [field, data], now_ms, 0.0)
        reign.feed(cast("Input", item))
        seen += 1
        if seen % 2_500 == 0:
            reign.recorder.flush(reign.hands.outbox)
            reign.hands.outbox.done(len(reign.hands.outbox))
            if reign.history.due(now_ms):
                reign.history.close(now_ms, reign.inboxes.heard(), {})

    return take


def main(reports: int = 50_000, rounds: int = 5) -> None:
    with RedisServer() as server:
        client = sync_client(server.url)
        for targets in (1, 3):
            fill(client, make_reports(reports, targets))
            best: dict[str, float] = {}
            for _ in range(rounds):
                for name, take in (
                    ("read", len),
                    ("decoded", decode_worker),
                    ("folded", folder()),
                    ("leader", leader()),
                ):
                    seconds = read(client, take)
                    best[name] = min(best.get(name, seconds), seconds)
            raw, folded = best["read"], best["folded"]
            ours = folded - raw
            print(
                f"\n{reports:,} reports of {targets} target{'s' * (targets > 1)}, best of {rounds} rounds, CPU time"
            )
            print(f"  raw XREAD               {reports / raw:>10,.0f}/s  {raw / reports * 1e6:6.2f} us each")
            print(f"  XREAD, decode           {reports / best['decoded']:>10,.0f}/s")
            print(f"  XREAD, decode, fold     {reports / folded:>10,.0f}/s  {folded / raw:6.2f} x raw")
            whole = best["leader"]
            print(f"  all a leader does       {reports / whole:>10,.0f}/s  {whole / raw:6.2f} x raw")
            print(
                f"  decode and fold alone   {reports / ours:>10,.0f}/s  {ours / reports * 1e6:6.2f} us each"
            )


if __name__ == "__main__":
    main(*(int(arg) for arg in sys.argv[1:]))
