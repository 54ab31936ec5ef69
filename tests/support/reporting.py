"""A worker's side of the contract, as small as can be: what a link writes and reads, without a link."""

from __future__ import annotations

import itertools
import secrets
from typing import Any, cast

import redis.asyncio

from supervisor.store.reads import now_ms
from supervisor.wire.codec import decode, encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Report, Snapshot, TargetCounts, WorkerInfo
from supervisor.wire.vocabulary import FaultKind, WorkerState

TARGET = "llm:groq:llama-3.3-70b-versatile"
OTHER = "llm:openai:gpt-4o-mini"


class RawWorker:
    """Counts as a container would, and reports when told to."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, worker: str = "w1", boot: str = "") -> None:
        self.api = cast("Any", client)
        self.client = client
        self.keys = keys
        self.worker = worker
        self.boot = boot or secrets.token_hex(4)
        self.epoch = 0
        self.revision = 0
        self._seq = itertools.count(1)
        self.counts: dict[str, TargetCounts] = {}

    async def register(self) -> None:
        """The record and its place in the index."""
        at_ms = await now_ms(self.client)
        info = WorkerInfo(
            self.worker, self.boot, f"host-{self.worker}", 1, at_ms, state=WorkerState.RUNNING,
            targets=tuple(self.counts), epoch=self.epoch, revision=self.revision,
        )  # fmt: skip
        key = self.keys.worker(self.worker)
        await self.api.hset(key, FIELD, encode(info))
        await self.api.expire(key, 15)
        await self.api.zadd(self.keys("workers"), {self.worker: at_ms})

    def ok(self, target: str = TARGET, times: int = 1) -> None:
        """Attempts that went well."""
        had = self.counts.get(target) or TargetCounts(target)
        self.counts[target] = TargetCounts(
            target, had.started + times, had.ok + times, had.faults, first_outputs=had.first_outputs + times
        )

    def fault(self, target: str = TARGET, kind: FaultKind = FaultKind.SERVER, times: int = 1) -> None:
        """Attempts that went wrong."""
        had = self.counts.get(target) or TargetCounts(target)
        faults = {**had.faults, kind: had.faults.get(kind, 0) + times}
        self.counts[target] = TargetCounts(
            target, had.started + times, had.ok, faults, first_outputs=had.first_outputs,
            trailing_faults=had.trailing_faults + times,
        )  # fmt: skip

    def report(self) -> bytes:
        """The next report."""
        return encode(
            Report(
                self.worker, self.boot, next(self._seq), 0, f"host-{self.worker}", tuple(self.counts.values()),
                self.epoch, self.revision, sessions=1,
            )
        )  # fmt: skip

    async def send(self, data: bytes | None = None, entry_id: str = "*") -> None:
        """A report (or these bytes) into the worker's stream."""
        key = self.keys.inbox(self.worker)
        pipe = self.api.pipeline(transaction=False)
        pipe.xadd(key, {FIELD: self.report() if data is None else data}, id=entry_id, maxlen=1000)
        pipe.expire(key, 120)
        await pipe.execute()


async def snapshot(client: redis.asyncio.Redis, keys: Keys, target: str = TARGET) -> Snapshot | None:
    """What the strategy in Redis says of a target."""
    raw = await cast("Any", client).hget(keys("strategy"), target)
    return decode(raw, Snapshot) if raw is not None else None
