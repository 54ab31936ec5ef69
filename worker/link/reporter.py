"""The link's command connection: reports, records, directives, and reading the strategy, in rounds.

Rule: one task, one connection, one pipeline a round, every round with a time limit. A round comes every
100 ms while something changed, at once for the first fault of a burst, and at least once a second. Redis
gone: counters go on, what is queued is bounded, and it tries again after a jittered pause of at most 2 s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import structlog
from redis.exceptions import ResponseError

from supervisor.wire.codec import decode, encode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import BY_NAME, FIELD, Keys
from supervisor.wire.messages import Directive, Goodbye, WorkerInfo
from supervisor.wire.vocabulary import WorkerState
from worker.link.core import LinkCore
from worker.link.outbox import Outbox
from worker.link.redis_wire import Answer, Command, RedisGone, RedisWire
from worker.link.strategy import HEAD_FIELD, Applied

_log = structlog.get_logger("worker.link")

EVERY_S: Final = 0.1
HEARTBEAT_S: Final = 1.0
DIRECTIVES_S: Final = 0.25  # a probe order waits at most so long when nothing else is sent
RECORD_S: Final = 5.0
COMPARE_S: Final = 5.0
READ_ALL_AT_MOST_EVERY_S: Final = 0.25  # garbage on the wake channel must not make us read without end
BACKOFF_CAP_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.05
_INDEX_KEEP_MS: Final = 600_000  # an index forgets members that have not been heard of for so long
_SEEN_DIRECTIVES: Final = 256


@dataclass(slots=True)
class Identity:
    """What a worker says of itself in its record."""

    worker: str
    boot: str
    host: str
    pid: int
    agent: str = ""
    version: str = ""
    state: WorkerState = WorkerState.STARTING
    started_at_ms: int = 0


@dataclass(slots=True)
class _Round:
    """The commands of one round, and who takes each answer."""

    commands: list[Command] = field(default_factory=list[Command])
    takers: list[Callable[[Answer], None] | None] = field(
        default_factory=list[Callable[[Answer], None] | None]
    )

    def add(self, *command: str | bytes | int, to: Callable[[Answer], None] | None = None) -> None:
        self.commands.append(command)
        self.takers.append(to)


class Reporter:
    """See the module's rule. `on_directive(directive)` gets each one once, in this task's loop."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        core: LinkCore,
        outbox: Outbox,
        identity: Identity,
        on_directive: Callable[[Directive], None],
    ) -> None:
        self._wire = RedisWire(url)
        self._keys = keys
        self._core = core
        self._outbox = outbox
        self.identity = identity
        self._on_directive = on_directive
        self._kick = asyncio.Event()
        self._urgent = False
        self._want_all = True
        self._round_mono = 0.0
        self._urgent_mono = 0.0
        self._beat_mono = 0.0
        self._record_mono = 0.0
        self._compare_mono = 0.0
        self._read_all_mono = 0.0
        self._cursor = "0-0"
        self._seen: dict[str, None] = {}
        self._up: bool | None = None
        self._refusals: set[str] = set()
        self._leader_until_ms: int | None = None
        self._applied = Applied.SAME
        self.reconnects = 0
        self.dropped_reports = 0
        self.clashes = 0
        core.on_change = self._kick.set
        core.on_fault = self._hurry
        outbox.on_result = self._hurry

    @property
    def up(self) -> bool:
        """The last round was answered."""
        return self._up is True

    def read_all(self) -> None:
        """Read the whole strategy in the next round (we have just subscribed, or missed something)."""
        self._want_all = True
        self._kick.set()

    def record_now(self) -> None:
        """Write the worker's record in the next round (its state changed)."""
        self._record_mono = 0.0
        self._kick.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            try:
                if not self._wire.is_open:
                    await self._open()
                await self._wait()
                await self._send()
                failures = 0
            except RedisGone as gone:
                self._down(gone.why)
                failures = min(failures + 1, 10)
                pause = min(BACKOFF_CAP_S, _BACKOFF_BASE_S * 2**failures) * random.uniform(0.5, 1.0)
                await asyncio.sleep(pause)

    async def goodbye(self) -> None:
        """The last report, then a farewell; best effort within the connection's time limit."""
        worker = self.identity.worker
        try:
            if not self._wire.is_open:
                await self._wire.open()
            await self._send()
            await self._wire.call(
                [
                    *_entry(self._keys.inbox(worker), encode(Goodbye(worker, self.identity.boot))),
                    ("DEL", self._keys.worker(worker)),
                    ("ZREM", self._keys("workers"), worker),
                ]
            )
        except RedisGone:
            pass
        finally:
            await self._wire.close()

    async def close(self) -> None:
        await self._wire.close()

    # ------------------------------------------------------------------ when

    def _hurry(self) -> None:
        self._urgent = True
        self._kick.set()

    def _due_mono(self) -> float:
        now = self._core.clock()
        if self._want_all:
            return max(now, self._read_all_mono + READ_ALL_AT_MOST_EVERY_S)
        if self._urgent and now >= self._urgent_mono + EVERY_S:
            return now
        if self._core.changed or len(self._outbox) or not self._record_mono:
            return self._round_mono + EVERY_S
        return self._round_mono + DIRECTIVES_S

    async def _wait(self) -> None:
        while True:
            self._kick.clear()
            left = self._due_mono() - self._core.clock()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._kick.wait()
            except TimeoutError:
                return

    # ------------------------------------------------------------------ one round

    async def _open(self) -> None:
        await self._wire.open()
        sent = self._core.clock()
        answer = (await self._wire.call([("TIME",)]))[0]
        self._take_time(answer, sent)
        if not self.identity.started_at_ms:
            self.identity.started_at_ms = self._core.redis_clock.now_ms(self._core.clock())
        # Whatever Redis this is now: introduce ourselves, read all, and look at every directive again.
        self._want_all = True
        self._record_mono = self._beat_mono = 0.0
        self._cursor = "0-0"
        self._core.changed = True

    async def _send(self) -> None:
        round_ = _Round()
        now = self._core.clock()
        if self._urgent:
            self._urgent, self._urgent_mono = False, now
        self._round_mono = now
        self._strategy_part(round_, now)
        reported = self._report_part(round_, now)
        recorded = self._record_part(round_, now)
        for command in self._outbox.commands(self._now_ms(), all_sessions=recorded):
            round_.add(*command)
        round_.add(
            "XREAD", "COUNT", 20, "STREAMS", self._keys.directive(self.identity.worker), self._cursor,
            to=self._take_directives,
        )  # fmt: skip
        round_.add("TIME")
        sent = self._core.clock()
        try:
            answers = await self._wire.call(round_.commands)
        except RedisGone:
            if reported:
                self.dropped_reports += 1
                self._core.changed = True
            if recorded:
                self._record_mono = 0.0
            self._want_all = True
            raise
        self._outbox.sent()
        self._take_time(answers[-1], sent)
        self._back()
        for command, taker, answer in zip(round_.commands, round_.takers, answers, strict=True):
            if isinstance(answer, ResponseError):
                self._refused(str(command[0]), answer)
            elif taker is not None:
                taker(answer)

    def _strategy_part(self, round_: _Round, now: float) -> None:
        if self._want_all and now >= self._read_all_mono + READ_ALL_AT_MOST_EVERY_S:
            self._want_all = False
            self._read_all_mono = now
            round_.add("HGET", self._keys("leader"), "until_ms", to=self._take_lease)
            round_.add("HGETALL", self._keys("strategy"), to=self._take_all)
        elif now < self._compare_mono:
            return
        else:
            round_.add("HGET", self._keys("leader"), "until_ms", to=self._take_lease)
            round_.add("HGET", self._keys("strategy"), HEAD_FIELD, to=self._take_head)
        self._compare_mono = now + COMPARE_S * random.uniform(0.8, 1.2)

    def _report_part(self, round_: _Round, now: float) -> bool:
        if not self._core.changed and now < self._beat_mono + HEARTBEAT_S:
            return False
        worker = self.identity.worker
        draining = self.identity.state is WorkerState.DRAINING
        report = self._core.report(self._outbox.sessions, draining=draining)
        for command in _entry(self._keys.inbox(worker), encode(report)):
            round_.add(*command)
        if now >= self._beat_mono + HEARTBEAT_S:
            self._beat_mono = now
            round_.add("ZADD", self._keys("workers"), self._now_ms(), worker, to=self._take_indexed)
        return True

    def _record_part(self, round_: _Round, now: float) -> bool:
        if self._record_mono and now < self._record_mono + RECORD_S:
            return False
        self._record_mono = now
        key, index = self._keys.worker(self.identity.worker), self._keys("workers")
        now_ms = self._now_ms()
        round_.add("HGET", key, FIELD, to=self._take_own_record)
        round_.add("HSET", key, FIELD, encode(self._info()))
        round_.add("EXPIRE", key, BY_NAME["worker:<worker>"].ttl_s or 15)
        round_.add("ZADD", index, now_ms, self.identity.worker)
        for name, zset in (("workers", index), ("sessions", self._keys("sessions"))):
            round_.add("ZREMRANGEBYSCORE", zset, 0, now_ms - _INDEX_KEEP_MS)
            round_.add("ZREMRANGEBYRANK", zset, 0, -1 - (BY_NAME[name].max_len or 4_000))
        return True

    def _info(self) -> WorkerInfo:
        core, identity = self._core, self.identity
        head = core.book.head
        return WorkerInfo(
            worker=identity.worker,
            boot=identity.boot,
            host=identity.host,
            pid=identity.pid,
            started_at_ms=identity.started_at_ms,
            version=identity.version[:64],
            agent=identity.agent[:200],
            state=identity.state,
            sessions=self._outbox.sessions,
            targets=tuple(core.entries),
            epoch=head.epoch,
            revision=head.revision,
            apply_lag_ms=core.apply_lag_ms,
            refused=dict(core.book.refused),
            redis_reconnects=self.reconnects,
            local_open=core.local_open(),
            dropped_reports=self.dropped_reports,
            dropped_faults=self._outbox.dropped_faults,
        )

    # ------------------------------------------------------------------ what came back

    def _take_time(self, answer: Answer, sent_mono: float) -> None:
        if isinstance(answer, ResponseError):
            self._refused("TIME", answer)
            return
        seconds, micros = cast("list[bytes]", answer)
        first = not self._core.redis_clock.known
        jumped = self._core.redis_clock.measured(
            int(seconds) * 1000 + int(micros) / 1000, sent_mono, self._core.clock()
        )
        if jumped:
            _log.warning("redis time jumped", action="link.clock.jumped")
            self._cursor = "0-0"
        if first or jumped:
            self._core.rebuild()

    def _take_lease(self, answer: Answer) -> None:
        self._leader_until_ms = int(answer) if answer else None

    def _take_head(self, answer: Answer) -> None:
        applied = self._core.book.head_read(cast("bytes | None", answer), self._known_ms())
        if applied is Applied.CHANGED or (applied is Applied.SAME and self._core.book.refused):
            self.read_all()  # newer, or what was refused may be good by now
        self._applied_now(Applied.SAME if applied is Applied.CHANGED else applied)

    def _take_all(self, answer: Answer) -> None:
        flat = cast("list[bytes]", answer)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        self._applied_now(self._core.book.read_all(fields, self._known_ms()))

    def _applied_now(self, applied: Applied) -> None:
        confirmed = None
        if applied in (Applied.SAME, Applied.CHANGED) and self._leader_until_ms is not None:
            now = self._core.clock()
            confirmed = min(now, self._core.redis_clock.mono_of(self._leader_until_ms))
        changed, self._applied = applied is not self._applied, applied
        if changed and applied in (Applied.OLDER, Applied.EMPTY, Applied.REFUSED):
            _log.warning(
                "strategy not taken", action=f"link.strategy.{applied.value}", head=str(self._core.book.head)
            )
        if applied is Applied.CHANGED:
            _log.info("strategy applied", action="link.strategy.applied", head=str(self._core.book.head))
        self._core.strategy(applied, confirmed)

    def _take_indexed(self, answer: Answer) -> None:
        if answer == 1:  # we were not in the index (any more): Redis is new, or was emptied
            self._record_mono = 0.0
            self._want_all = True

    def _take_own_record(self, answer: Answer) -> None:
        if not answer:
            return
        try:
            other = decode(cast("bytes", answer), WorkerInfo)
        except WireError:
            return
        if other.boot != self.identity.boot and other.started_at_ms >= self.identity.started_at_ms:
            self.clashes += 1
            if self.clashes == 1:
                _log.error(
                    "another worker uses the same id; give each container its own WORKER_ID",
                    action="link.worker.clash",
                    worker=self.identity.worker,
                    other_host=other.host,
                )

    def _take_directives(self, answer: Answer) -> None:
        for _, entries in cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", answer or []):
            for entry_id, flat in entries:
                self._cursor = entry_id.decode()
                try:
                    directive = decode(flat[1], Directive)
                except (WireError, IndexError):
                    _log.warning("directive not read", action="link.directive.unreadable")
                    continue
                self._take_directive(directive)

    def _take_directive(self, directive: Directive) -> None:
        if directive.id in self._seen:
            return
        self._seen[directive.id] = None
        while len(self._seen) > _SEEN_DIRECTIVES:
            del self._seen[next(iter(self._seen))]
        # Not ours: it was meant for the worker that had this id before, or comes from a leader of the past.
        if (
            directive.issued_at_ms < self.identity.started_at_ms
            or directive.epoch < self._core.book.head.epoch
        ):
            return
        self._on_directive(directive)

    # ------------------------------------------------------------------ up and down

    def _back(self) -> None:
        if self._up is True:
            return
        if self._up is False:
            self.reconnects += 1
        self._up = True
        _log.info("redis answers", action="link.redis.up", reconnects=self.reconnects)

    def _down(self, why: str) -> None:
        if self._up is not False:
            _log.warning("redis does not answer; calls go on", action="link.redis.down", why=why)
        self._up = False

    def _refused(self, command: str, error: ResponseError) -> None:
        """Redis answers but will not do it (rights, memory, a key of another type): say so once."""
        word = f"{command} {type(error).__name__}"
        if word not in self._refusals and len(self._refusals) < 100:
            self._refusals.add(word)
            _log.error(
                "redis refused a command",
                action="link.redis.refused",
                command=command,
                error=type(error).__name__,
            )

    def _now_ms(self) -> int:
        return self._core.redis_clock.now_ms(self._core.clock())

    def _known_ms(self) -> int | None:
        return self._now_ms() if self._core.redis_clock.known else None


def _entry(inbox: str, data: bytes) -> tuple[Command, Command]:
    spec = BY_NAME["in:<worker>"]
    return (
        ("XADD", inbox, "MAXLEN", "~", spec.max_len or 1_000, "*", FIELD, data),
        ("EXPIRE", inbox, spec.ttl_s or 120),
    )
