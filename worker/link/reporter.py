"""The link's command connection: reports, records, directives, and reading the strategy, in rounds.

Rule: one task, one connection, one pipeline a round, every round with a time limit. A round comes every
100 ms while something changed, at once for the first fault of a burst, and reports at least once a second.
Redis gone: counters go on, what is queued is bounded, and it is tried again after at most 2 s, jittered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import structlog
from redis.exceptions import ResponseError

from supervisor.wire.codec import decode, encode
from supervisor.wire.errors import WireError
from supervisor.wire.keys import BY_NAME, FIELD, Keys
from supervisor.wire.messages import Directive, Goodbye, WorkerInfo
from supervisor.wire.vocabulary import WorkerState
from worker.link.core import LinkCore
from worker.link.directives import Directives
from worker.link.outbox import Outbox
from worker.link.redis_wire import Answer, Command, RedisGone, RedisWire
from worker.link.rounds import Refusals, Round
from worker.link.strategy_reader import StrategyReader

_log = structlog.get_logger("worker.link")

EVERY_S: Final = 0.1
HEARTBEAT_S: Final = 1.0
DIRECTIVES_S: Final = 0.25  # a probe order waits at most so long when nothing else is sent
RECORD_S: Final = 5.0
BACKOFF_CAP_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.05
_INDEX_KEEP_MS: Final = 600_000  # an index forgets members that have not been heard of for so long
_NEVER: Final = float("-inf")


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
        self.strategy = StrategyReader(core, keys)
        self._directives = Directives(keys.directive(identity.worker), on_directive)
        self._refusals = Refusals()
        self._kick = asyncio.Event()
        self._urgent = False
        self._round_mono = _NEVER
        self._urgent_mono = _NEVER
        self._beat_mono = _NEVER
        self._record_mono = _NEVER
        self._recorded_targets: int = 0
        self._up: bool | None = None
        self.rounds = 0
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
        self.strategy.want_all()
        self._kick.set()

    def record_now(self) -> None:
        """Write the worker's record in the next round (its state changed)."""
        self._record_mono = _NEVER
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
        """The last report, then a farewell; best effort within the connection's time limit.

        The index keeps the name until the leader has read the farewell and finds the record gone.
        """
        worker = self.identity.worker
        try:
            if not self._wire.is_open:
                await self._wire.open()
            self._core.changed = True  # a round that was cut off may have taken the last counts with it
            await self._send()
            farewell = encode(Goodbye(worker, self.identity.boot))
            await self._wire.call(
                [*_entry(self._keys.inbox(worker), farewell), ("DEL", self._keys.worker(worker))]
            )
        except RedisGone:
            pass
        finally:
            await self._wire.close()

    # ------------------------------------------------------------------ when

    def _hurry(self) -> None:
        self._urgent = True
        self._kick.set()

    def _due_mono(self, now: float) -> float:
        if self._urgent and now >= self._urgent_mono + EVERY_S:
            return now
        due = min(self._round_mono + DIRECTIVES_S, self.strategy.due_mono())
        if self._core.changed or self._urgent or len(self._outbox) or self._record_mono == _NEVER:
            due = min(due, self._round_mono + EVERY_S)
        return due

    async def _wait(self) -> None:
        while True:
            self._kick.clear()
            now = self._core.clock()
            left = self._due_mono(now) - now
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
        self._take_time((await self._wire.call([("TIME",)]))[0], sent)
        if not self.identity.started_at_ms:
            self.identity.started_at_ms = self._directives.since_ms = self._now_ms()
        # Whatever Redis this is now: introduce ourselves, read all, and look at every directive again.
        self.strategy.want_all()
        self._directives.rewind()
        self._record_mono = self._beat_mono = _NEVER
        self._core.changed = True

    async def _send(self) -> None:
        round_ = Round()
        now = self._core.clock()
        if self._urgent:
            self._urgent, self._urgent_mono = False, now
        self._round_mono = now
        self.strategy.add_to(round_, now)
        reported = self._add_report(round_, now)
        recorded = self._add_record(round_, now)
        round_.extend(self._outbox.commands(self._now_ms(), all_sessions=recorded))
        self._directives.epoch = self._core.book.head.epoch
        self._directives.add_to(round_)
        round_.add("TIME")
        sent = self._core.clock()
        try:
            answers = await self._wire.call(round_.commands)
        except RedisGone:
            self.dropped_reports += reported
            raise
        self.rounds += 1
        self._outbox.sent()
        self._back()
        self._take_time(answers[-1], sent)
        self._refusals.hand_out(round_, answers)

    def _add_report(self, round_: Round, now: float) -> bool:
        beat = now >= self._beat_mono + HEARTBEAT_S
        if not self._core.changed and not beat:
            return False
        worker = self.identity.worker
        draining = self.identity.state is WorkerState.DRAINING
        report = self._core.report(self._outbox.sessions, draining=draining)
        round_.extend(_entry(self._keys.inbox(worker), encode(report)))
        if beat:
            self._beat_mono = now
            round_.add("ZADD", self._keys("workers"), self._now_ms(), worker, to=self._take_indexed)
        return True

    def _add_record(self, round_: Round, now: float) -> bool:
        targets = len(self._core.entries)
        if now < self._record_mono + RECORD_S and targets == self._recorded_targets:
            return False
        self._record_mono, self._recorded_targets = now, targets
        key = self._keys.worker(self.identity.worker)
        now_ms = self._now_ms()
        round_.add("HGETALL", key, to=self._take_own_record)
        round_.add("HSET", key, FIELD, encode(self._info()))
        round_.add("EXPIRE", key, BY_NAME["worker:<worker>"].ttl_s or 15)
        for name in ("workers", "sessions"):
            round_.add("ZREMRANGEBYSCORE", self._keys(name), 0, now_ms - _INDEX_KEEP_MS)
            round_.add("ZREMRANGEBYRANK", self._keys(name), 0, -1 - (BY_NAME[name].max_len or 4_000))
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
            self._refusals.note("TIME", answer)
            return
        seconds, micros = cast("list[bytes]", answer)
        clock = self._core.redis_clock
        first = not clock.known
        jumped = clock.measured(int(seconds) * 1000 + int(micros) / 1000, sent_mono, self._core.clock())
        if jumped:
            _log.warning("redis time jumped", action="link.clock.jumped")
            self._directives.rewind()
        if first or jumped:
            self._core.rebuild()

    def _take_indexed(self, answer: Answer) -> None:
        if answer == 1 and self.rounds > 1:  # we are in the index no more: Redis was emptied
            self._record_mono = _NEVER
            self.read_all()

    def _take_own_record(self, answer: Answer) -> None:
        flat = cast("list[bytes]", answer or [])
        try:
            other = decode(flat[1], WorkerInfo)
        except (WireError, IndexError):
            return
        if other.boot == self.identity.boot or other.started_at_ms < self.identity.started_at_ms:
            return
        self.clashes += 1
        if self.clashes == 1:
            _log.error(
                "another worker uses the same id; give each container its own WORKER_ID",
                action="link.worker.clash",
                worker=self.identity.worker,
                other_host=other.host,
            )

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

    def _now_ms(self) -> int:
        return self._core.redis_clock.now_ms(self._core.clock())


def _entry(inbox: str, data: bytes) -> tuple[Command, Command]:
    spec = BY_NAME["in:<worker>"]
    return (
        ("XADD", inbox, "MAXLEN", "~", spec.max_len or 1_000, "*", FIELD, data),
        ("EXPIRE", inbox, spec.ttl_s or 120),
    )
