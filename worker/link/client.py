"""The link in a job process: the container's Unix socket, and a core of its own while that is gone.

Rule: the call path appends to a bounded queue and returns; writing happens in the loop, in batches. When the
container is gone the last rules stay in force, narrowed by a breaker that this process keeps by itself.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, cast

import msgspec
import structlog

from supervisor.wire.messages import FaultEvent, ProbeResult, SessionInfo
from supervisor.wire.vocabulary import FaultKind, Role
from worker.link import frames
from worker.link.api import ProbeHandler, Rules, RulesListener, TargetSpec, Use
from worker.link.clip import clip_event, clip_result, clip_session
from worker.link.core import LinkCore
from worker.link.listeners import Listeners
from worker.link.probe_runner import ProbeRunner
from worker.link.settings import LinkSettings
from worker.link.tasks import end, forever

_log = structlog.get_logger("worker.link")

MAX_QUEUE: Final = 10_000
_BATCH: Final = 500  # events in one frame: far below the longest one even with fault lines
_BACKOFF_CAP_S: Final = 2.0
_BACKOFF_BASE_S: Final = 0.02
_TICK_S: Final = 0.05
_NO_USE: Final = Use()

_Event = tuple[object, ...]
_Flight = tuple[str, int, float]  # target, deadline_ms, started_mono: made on every call's path


class SocketLink:
    """See `worker.link.api.Link`. `await start()` in a running loop, `await aclose()` at the end."""

    def __init__(self, settings: LinkSettings) -> None:
        """Needs `settings.socket`."""
        self.settings = settings
        self.loop: asyncio.AbstractEventLoop | None = None
        self.dropped = 0
        self._worker = settings.worker
        self._rules = Rules()
        self._listeners = Listeners()
        self._queue: deque[_Event] = deque()
        self._dropped_unsaid = 0
        self._attempt = 0
        self._flights: dict[int, _Flight] = {}
        self._held: dict[str, TargetSpec] = {}
        self._sessions: dict[str, SessionInfo] = {}
        self._runner = ProbeRunner(self._probed)
        self._wire: _Wire | None = None
        self._flushing = False
        self._core: LinkCore | None = None  # while the container is gone
        self._ready = asyncio.Event()
        self._alone = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._users = 1
        self._fall_back()

    # ------------------------------------------------------------------ life

    async def start(self, ready_within_s: float = 1.0) -> None:
        """Connect. Never fails: without the container after `ready_within_s` the local breaker guards alone."""
        self.loop = asyncio.get_running_loop()
        self._tasks.append(self.loop.create_task(forever(self._connect, "link-socket")))
        self._tasks.append(self.loop.create_task(forever(self._ticks, "link-ticks")))
        try:
            async with asyncio.timeout(ready_within_s):
                await self._ready.wait()
        except TimeoutError:
            _log.warning("container's link not there; guarding alone", action="link.socket.absent")

    @property
    def closed(self) -> bool:
        return self._closed

    def share(self) -> None:
        """One more user: `aclose()` closes when each has called it."""
        self._users += 1

    async def aclose(self) -> None:
        """Send what is queued and stop. Attempts under way count against nobody."""
        self._users -= 1
        if self._users > 0 or self._closed:
            return
        self._closed = True
        for attempt in list(self._flights):
            self.abandoned(attempt)
        await self._runner.aclose()
        wire = self._wire
        if wire is not None:
            while self._queue and not wire.paused and self._wire is wire:
                self._flush()
            self._wire = None
            await wire.drain_and_close()
        await end(self._tasks)

    @property
    def connected(self) -> bool:
        return self._core is None

    # ------------------------------------------------------------------ the face

    @property
    def rules(self) -> Rules:
        return self._rules

    @property
    def worker(self) -> str:
        return self._worker

    def hold(self, specs: list[TargetSpec]) -> None:
        for spec in specs:
            self._held[spec.id] = spec
            self._put((frames.HOLD, spec.id, spec.order, spec.key_fp))
        if self._core is not None:
            self._core.hold(specs)

    def started(self, target: str, deadline_ms: int) -> int:
        self._attempt = attempt = self._attempt + 1
        now = monotonic()
        self._flights[attempt] = (target, deadline_ms, now)
        self._put((frames.STARTED, attempt, target, deadline_ms, now))
        if self._core is not None:
            self._core.started(attempt, target, now)
        return attempt

    def first_output(self, attempt: int, waited_ms: int) -> None:
        self._put((frames.FIRST_OUTPUT, attempt, waited_ms))
        if self._core is not None:
            self._core.first_output(attempt, waited_ms)

    def succeeded(self, attempt: int, use: Use = _NO_USE) -> None:
        flight = self._flights.pop(attempt, None)
        if flight is None:
            return
        self._put((frames.SUCCEEDED, attempt, flight[0], use.tokens, use.characters, use.audio_ms))
        if self._core is not None:
            self._core.succeeded(attempt, use)

    def failed(
        self, attempt: int, kind: FaultKind, event: FaultEvent | None = None, retry_after_ms: int = 0
    ) -> None:
        flight = self._flights.pop(attempt, None)
        if flight is None:
            return
        clipped = None if event is None else clip_event(event)
        self._put((frames.FAILED, attempt, flight[0], kind, clipped, max(0, int(retry_after_ms))))
        if self._core is not None:
            self._core.failed(attempt, kind, retry_after_ms)

    def abandoned(self, attempt: int) -> None:
        flight = self._flights.pop(attempt, None)
        if flight is None:
            return
        self._put((frames.ABANDONED, attempt, flight[0]))
        if self._core is not None:
            self._core.abandoned(attempt)

    def session(self, info: SessionInfo) -> None:
        info = clip_session(info)
        if info.ended_at_ms:
            self._sessions.pop(info.session, None)
        else:
            self._sessions[info.session] = info
        self._put((frames.SESSION, info))

    def on_rules(self, listener: RulesListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        withdraw = self._runner.offer(role, handler)
        self._put((frames.OFFER, role, True))

        def leave() -> None:
            withdraw()
            if role not in self._runner.roles:
                self._put((frames.OFFER, role, False))

        return leave

    # ------------------------------------------------------------------ out

    def _put(self, event: _Event) -> None:
        queue = self._queue
        if len(queue) >= MAX_QUEUE:
            queue.popleft()
            self.dropped += 1
            self._dropped_unsaid += 1
        queue.append(event)
        if not self._flushing and self._wire is not None:
            self._flushing = True
            cast("asyncio.AbstractEventLoop", self.loop).call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        wire = self._wire
        if wire is None or wire.paused:
            return
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), _BATCH))]
        if self._dropped_unsaid:
            batch.append((frames.DROPPED, self._dropped_unsaid))
            self._dropped_unsaid = 0
        if batch:
            self._write(wire, batch)
        if queue:
            self._flushing = True
            cast("asyncio.AbstractEventLoop", self.loop).call_soon(self._flush)

    def _write(self, wire: _Wire, batch: list[_Event]) -> None:
        try:
            wire.write(frames.frame(batch))
        except (frames.BadFrame, TypeError, ValueError, OverflowError, msgspec.MsgspecError) as exc:
            if len(batch) > 1:  # one bad event must not cost the others
                for event in batch:
                    self._write(wire, [event])
                return
            self.dropped += 1
            self._dropped_unsaid += 1
            _log.error("event not sent", action="link.socket.unsendable", error=type(exc).__name__)

    # ------------------------------------------------------------------ in

    def take(self, message: frames.ContainerMessage) -> None:
        """For `_Wire`."""
        if isinstance(message, frames.ProbeFrame):
            self._runner.start(message.directive, message.deadline_mono)
            return
        self._worker = message.worker
        if self._core is not None:
            self._core = None
            self._alone.clear()
            _log.info("container's link is there", action="link.socket.up")
        self._ready.set()
        self._set_rules(frames.rules_of(message))

    def _set_rules(self, rules: Rules) -> None:
        self._rules = rules
        self._listeners.tell(rules)

    def _probed(self, result: ProbeResult) -> None:
        self._put((frames.PROBED, clip_result(result)))

    # ------------------------------------------------------------------ the socket's life

    async def _connect(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, wire = await loop.create_unix_connection(lambda: _Wire(self), self.settings.socket)
            except OSError:
                failures = min(failures + 1, 10)
            else:
                failures = 0
                self._introduce(wire)
                await wire.lost.wait()
                self._wire = None
                self._fall_back()
                if not self._closed:
                    _log.warning("container's link gone; guarding alone", action="link.socket.down")
            pause = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2**failures) * random.uniform(0.5, 1.0)
            await asyncio.sleep(pause)

    def _introduce(self, wire: _Wire) -> None:
        """Say who we are and what is under way, before what was queued meanwhile."""
        batch: list[_Event] = [(frames.HELLO, os.getpid())]
        batch.extend((frames.HOLD, s.id, s.order, s.key_fp) for s in self._held.values())
        batch.extend((frames.OFFER, role, True) for role in self._runner.roles)
        batch.extend((frames.SESSION, info) for info in self._sessions.values())
        # A start that also stands in the queue is the same attempt, and is counted once.
        batch.extend((frames.STARTED, number, *flight) for number, flight in self._flights.items())
        self._wire = wire
        for at in range(0, len(batch), _BATCH):
            self._write(wire, batch[at : at + _BATCH])
        self._flush()

    def _fall_back(self) -> None:
        """The container is gone: go on with a core of our own, from what we last knew."""
        core = LinkCore(
            self._worker, secrets.token_hex(8), self.settings.host, time.monotonic, lambda: time.time() * 1000
        )
        core.hold(list(self._held.values()))
        core.seed(self._rules)
        for attempt, (target, _, at_mono) in self._flights.items():
            core.started(attempt, target, at_mono)
        core.listen(self._set_rules)
        self._core = core
        self._alone.set()

    async def _ticks(self) -> None:
        while True:
            await self._alone.wait()  # connected, the container keeps the time
            await asyncio.sleep(_TICK_S)
            if self._core is not None:
                self._core.tick()

    def flush_soon(self) -> None:
        """For `_Wire`: it can be written to again."""
        self._flush()


class _Wire(asyncio.Protocol):
    """One connection to the container."""

    def __init__(self, link: SocketLink) -> None:
        self._link = link
        self._reader = frames.FrameReader()
        self._transport: asyncio.WriteTransport | None = None
        self.paused = False
        self.lost = asyncio.Event()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain_and_close(self) -> None:
        """Give what was written a moment to leave."""
        if self._transport is not None:
            self._transport.close()
            try:
                async with asyncio.timeout(1.0):
                    await self.lost.wait()
            except TimeoutError:
                self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                self._link.take(frames.read_message(body))
        except frames.BadFrame as exc:
            _log.error("container's message not read", action="link.socket.bad_frame", why=str(exc))
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._link.flush_soon()
