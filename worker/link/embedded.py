"""The link in the process that makes the calls: the same core, with Redis tasks in the running loop.

For agents embedded elsewhere, and what the container's link is made of. Without a Redis URL it is the local
breaker and budget alone.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

import msgspec
import structlog

import worker as worker_package
from supervisor.wire.keys import Keys
from supervisor.wire.messages import Directive, FaultEvent, SessionInfo
from supervisor.wire.vocabulary import DirectiveKind, FaultKind, Role, WorkerState
from worker.link.api import ProbeHandler, Rules, RulesListener, TargetSpec, Use
from worker.link.clip import clip_event, clip_session
from worker.link.core import LinkCore
from worker.link.ledger import key_job
from worker.link.listener import WakeListener
from worker.link.outbox import Outbox
from worker.link.probe_runner import ProbeRunner
from worker.link.probes import ProbeDesk
from worker.link.reporter import Identity, Reporter
from worker.link.settings import LinkSettings
from worker.link.strategy import Applied
from worker.link.tasks import end, forever

_log = structlog.get_logger("worker.link")

TICK_S: Final = 0.05  # how late an overdue attempt is noticed
_IDLE_TICK_S: Final = 0.25
_HERE: Final = 0  # the number of this process among the jobs
_NO_USE: Final = Use()

DrainHandler = Callable[[], object]


class EmbeddedLink:
    """See `worker.link.api.Link`. `await start()` in a running loop, `await aclose()` at the end."""

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.keys = Keys(settings.fleet)
        boot = secrets.token_hex(8)
        self.core = LinkCore(settings.worker, boot, settings.host[:128], time.monotonic, _wall_ms)
        self.outbox = Outbox(self.keys, settings.worker)
        self.desk = ProbeDesk(settings.worker, self.outbox.result)
        self.identity = Identity(
            worker=settings.worker,
            boot=boot,
            host=settings.host[:128],
            pid=os.getpid(),
            agent=settings.agent,
            version=settings.version or getattr(worker_package, "__version__", ""),
        )
        self.reporter: Reporter | None = None
        self.listener: WakeListener | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._attempt = 0
        self._runner = ProbeRunner(lambda result: self.desk.ended(_HERE, result))
        self._prober = self.desk.join(_HERE, self._runner.start)
        self._on_drain: list[DrainHandler] = []
        self._closed = False
        self._users = 1

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin. Never fails because of Redis: it is looked for until it is there."""
        self.loop = asyncio.get_running_loop()
        self._spawn(self._ticks, "link-ticks")
        if not self.settings.redis_url:
            _log.info("no REDIS_URL: the local breaker guards alone", action="link.local_only")
            return
        self.reporter = Reporter(
            self.settings.redis_url, self.keys, self.core, self.outbox, self.identity, self._directive
        )
        self.listener = WakeListener(
            self.settings.redis_url, self.keys("wake"), self._wake, self.reporter.read_all
        )
        self._spawn(self.reporter.run, "link-reports")
        self._spawn(self.listener.run, "link-wakes")
        self.set_state(WorkerState.RUNNING)

    @property
    def closed(self) -> bool:
        return self._closed

    def share(self) -> None:
        """One more user: `aclose()` closes when each has called it."""
        self._users += 1

    async def aclose(self) -> None:
        """Say goodbye to the fleet and stop. Attempts under way count against nobody."""
        self._users -= 1
        if self._users > 0 or self._closed:
            return
        self._closed = True
        await end(self._tasks)
        await self._runner.aclose()
        self.core.on_change = self.core.on_fault = self.outbox.on_result = _nothing
        for job in {key_job(key) for key in self.core.flights}:
            self.core.abandon_job(job)
        if self.listener is not None:
            await self.listener.close()
        if self.reporter is not None:
            await self.reporter.goodbye()

    def set_state(self, state: WorkerState) -> None:
        """What the worker is doing; said to the fleet when it changes."""
        if state is not self.identity.state:
            self.identity.state = state
            self.core.changed = True
            if self.reporter is not None:
                self.reporter.record_now()

    def on_drain(self, handler: DrainHandler) -> None:
        """`handler()` is called (in this loop) when the fleet wants this worker to drain."""
        self._on_drain.append(handler)

    # ------------------------------------------------------------------ the face

    @property
    def rules(self) -> Rules:
        return self.core.rules

    @property
    def worker(self) -> str:
        return self.settings.worker

    def hold(self, specs: list[TargetSpec]) -> None:
        self._prober.targets.update(spec.id for spec in specs)
        self.core.hold(specs)

    def started(self, target: str, deadline_ms: int) -> int:
        # Overdue follows the snapshot's own number, not this attempt's deadline.
        self._attempt = attempt = self._attempt + 1
        self.core.started(attempt, target, monotonic())
        return attempt

    def first_output(self, attempt: int, waited_ms: int) -> None:
        self.core.first_output(attempt, waited_ms)

    def succeeded(self, attempt: int, use: Use = _NO_USE) -> None:
        self.core.succeeded(attempt, use)

    def failed(
        self, attempt: int, kind: FaultKind, event: FaultEvent | None = None, retry_after_ms: int = 0
    ) -> None:
        # The line first: a fault makes a report at once, and the two go together.
        if event is not None:
            self.note_fault(event)
        self.core.failed(attempt, kind, retry_after_ms)

    def abandoned(self, attempt: int) -> None:
        self.core.abandoned(attempt)

    def session(self, info: SessionInfo) -> None:
        self.note_session(info)

    def on_rules(self, listener: RulesListener) -> Callable[[], None]:
        return self.core.listen(listener)

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        stop = self._runner.offer(role, handler)
        self._prober.roles = self._runner.roles

        def leave() -> None:
            stop()
            self._prober.roles = self._runner.roles

        return leave

    # ------------------------------------------------------------------ for the container's own parts

    def note_fault(self, event: FaultEvent) -> None:
        """A fault's line, with what only the link knows put in."""
        now_ms = self.core.redis_clock.now_ms(self.core.clock())
        if self.settings.redis_url:
            self.outbox.fault(
                msgspec.structs.replace(
                    clip_event(event), at_ms=now_ms, worker=self.worker, host=self.identity.host
                )
            )

    def note_session(self, info: SessionInfo) -> None:
        """A session's record, live or ended."""
        if not self.settings.redis_url:
            return
        if not self.outbox.session(msgspec.structs.replace(clip_session(info), worker=self.worker)):
            _log.warning("session not recorded", action="link.session.refused")
        if self.reporter is not None:
            self.core.changed = True
            self.core.on_change()

    # ------------------------------------------------------------------ inside

    def _spawn(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        self._tasks.append(asyncio.create_task(forever(work, name), name=name))

    async def _ticks(self) -> None:
        while True:
            await asyncio.sleep(TICK_S if self.core.flights or self.desk.running else _IDLE_TICK_S)
            self.core.tick()
            self.desk.tick(self.core.clock())

    def _wake(self, data: bytes) -> None:
        clock = self.core.redis_clock
        applied = self.core.book.wake(data, clock.now_ms(self.core.clock()) if clock.known else None)
        self.core.strategy(applied)
        if applied in (Applied.MISSED, Applied.REFUSED) and self.reporter is not None:
            self.reporter.read_all()

    def _directive(self, directive: Directive) -> None:
        now = self.core.clock()
        deadline = self.core.redis_clock.mono_of(directive.deadline_at_ms)
        if directive.kind is DirectiveKind.PROBE:
            self.desk.start(directive, now, deadline)
            return
        if now >= deadline:
            _log.info("drain too late", action="link.drain.late")
            return
        _log.info("asked to drain", action="link.drain.asked")
        for handler in self._on_drain:
            _call(handler)


def _call(handler: DrainHandler) -> None:
    try:
        handler()
    except Exception as exc:  # noqa: BLE001 - the worker's own handler must not stop the link
        _log.error("drain handler failed", action="link.drain.failed", error=type(exc).__name__)


def _wall_ms() -> float:
    return time.time() * 1000


def _nothing() -> None:
    return None
