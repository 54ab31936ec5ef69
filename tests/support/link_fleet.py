"""The leader's hand for tests of the link: writes strategies and directives, reads what links wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import redis.asyncio

from supervisor.wire.codec import decode, decode_worker, encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import (
    Directive,
    Goodbye,
    Message,
    ProbeResult,
    Report,
    Snapshot,
    TargetCounts,
    Wake,
    WorkerInfo,
)
from supervisor.wire.vocabulary import DirectiveKind, State
from worker.link import ContainerLink, EmbeddedLink, LinkSettings, SocketLink, TargetSpec, open_link

A, B, V = "llm:groq:a", "llm:openai:b", "tts:cartesia:v"
SPECS = [TargetSpec(A, 0, "key-a"), TargetSpec(B, 1, "key-b"), TargetSpec(V, 0)]

T = TypeVar("T", bound=Message)


class LeaderHand:
    """Does by hand what the supervisor does, on a fleet of its own."""

    def __init__(self, url: str, fleet: str) -> None:
        self.keys = Keys(fleet)
        # A link must live through a Redis that answers nobody; this client only has to find it again.
        self.redis: Any = cast("Any", redis.asyncio.Redis).from_url(
            url, socket_timeout=2, socket_connect_timeout=2
        )
        self.epoch = 0
        self.revision = 0
        self._directives = 0

    async def now_ms(self) -> int:
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def lead(self, lease_ms: int = 3_600_000) -> None:
        """Take office with an epoch of now."""
        now = await self.now_ms()
        self.epoch, self.revision = max(self.epoch + 1, now), self.revision
        await self.redis.hset(self.keys("leader"), mapping={"epoch": self.epoch, "until_ms": now + lease_ms})
        await self.redis.expire(self.keys("leader"), 86_400)

    def snapshot(self, target: str = A, state: State = State.UNHEALTHY, **over: Any) -> Snapshot:
        """A snapshot of the next revision."""
        over.setdefault("admit", 0.0)
        return Snapshot(target=target, revision=self.revision + 1, epoch=self.epoch, state=state, **over)

    async def write(self, *snapshots: Snapshot, wake: bool = True, epoch: int | None = None) -> None:
        """Write as the leader does: hash and head together, then the wake-up."""
        self.revision += 1
        epoch = self.epoch if epoch is None else epoch
        pipe = self.redis.pipeline(transaction=True)
        for snapshot in snapshots:
            pipe.hset(self.keys("strategy"), snapshot.target, encode(snapshot))
        pipe.hset(self.keys("strategy"), "_", encode(Wake(epoch, self.revision)))
        if wake:
            pipe.publish(self.keys("wake"), encode(Wake(epoch, self.revision, snapshots)))
        await pipe.execute()

    async def direct(self, worker: str, kind: DirectiveKind = DirectiveKind.PROBE, **over: Any) -> Directive:
        """Send a directive; `within_ms` is how long it may take."""
        self._directives += 1
        now = await self.now_ms()
        directive = Directive(
            id=over.get("id", f"d{self._directives}"),
            kind=kind,
            epoch=over.get("epoch", self.epoch),
            issued_at_ms=over.get("issued_at_ms", now),
            deadline_at_ms=now + over.get("within_ms", 5_000),
            target=over.get("target", A),
            budget_ms=over.get("budget_ms", 4_000),
        )
        await self.put_directive(worker, encode(directive))
        return directive

    async def put_directive(self, worker: str, data: bytes) -> None:
        key = self.keys.directive(worker)
        await self.redis.xadd(key, {FIELD: data}, maxlen=100, approximate=True)
        await self.redis.expire(key, 120)

    async def inbox(self, worker: str = "w1") -> list[Report | ProbeResult | Goodbye]:
        """Everything the worker sent, oldest first; each must be readable."""
        entries = await self.redis.xrange(self.keys.inbox(worker))
        return [decode_worker(fields[FIELD.encode()]) for _, fields in entries]

    async def report(self, worker: str = "w1") -> Report | None:
        """The newest report."""
        found = [m for m in await self.inbox(worker) if isinstance(m, Report)]
        return found[-1] if found else None

    async def counts(self, target: str = A, worker: str = "w1") -> TargetCounts:
        """The newest counts of a target (zeros before the first)."""
        report = await self.report(worker)
        found = [c for c in report.targets if c.target == target] if report else []
        return found[0] if found else TargetCounts(target)

    async def results(self, worker: str = "w1") -> list[ProbeResult]:
        return [m for m in await self.inbox(worker) if isinstance(m, ProbeResult)]

    async def stream(self, name: str, kind: type[T]) -> list[T]:
        return [decode(f[FIELD.encode()], kind) for _, f in await self.redis.xrange(self.keys(name))]

    async def info(self, worker: str = "w1") -> WorkerInfo | None:
        raw = await self.redis.hget(self.keys.worker(worker), FIELD)
        return decode(raw, WorkerInfo) if raw else None

    async def connections(self) -> int:
        """Clients of the server that are not this one's."""
        listed = cast("list[dict[str, str]]", await self.redis.client_list())
        own = str(await self.redis.client_id())
        return sum(1 for c in listed if c["id"] != own)

    async def forget_connections(self) -> None:
        """After the server was killed: what this client has open leads nowhere."""
        await self.redis.connection_pool.disconnect()

    async def aclose(self) -> None:
        await self.redis.aclose()


@asynccontextmanager
async def leader_hand(url: str, fleet: str) -> AsyncGenerator[LeaderHand]:
    hand = LeaderHand(url, fleet)
    try:
        yield hand
    finally:
        await hand.aclose()


@asynccontextmanager
async def container(url: str, fleet: str, worker: str = "w1") -> AsyncGenerator[ContainerLink]:
    """A container's link that holds A, B and V."""
    link = ContainerLink(LinkSettings(fleet=fleet, worker=worker, redis_url=url))
    await link.start()
    link.hold(SPECS)
    try:
        yield link
    finally:
        await link.aclose()


@asynccontextmanager
async def alone(fleet: str) -> AsyncGenerator[ContainerLink]:
    """A container without Redis."""
    link = ContainerLink(LinkSettings(fleet=fleet, worker="w1"))
    await link.start()
    try:
        yield link
    finally:
        await link.aclose()


@asynccontextmanager
async def job(of: ContainerLink, *, hold: bool = True) -> AsyncGenerator[SocketLink]:
    """A job's link to the container's."""
    link = await open_link(LinkSettings(worker="job", socket=of.socket_path))
    assert isinstance(link, SocketLink)
    if hold:
        link.hold(SPECS)
    try:
        yield link
    finally:
        await link.aclose()


async def settle() -> None:
    """Let callbacks that are ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


AnyLink = ContainerLink | EmbeddedLink | SocketLink
