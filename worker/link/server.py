"""The container's end of the Unix socket: job processes come and go, their events go into the core.

Rule: no job can slow or stop another one. A job that sends what cannot be read is cut off, one that does not
read gets only the newest rules, and one that dies leaves nothing in the air.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec
import structlog

from supervisor.wire.messages import Directive
from worker.link import frames
from worker.link.api import Rules, TargetSpec, Use
from worker.link.ledger import flight_key
from worker.link.probes import Prober

if TYPE_CHECKING:
    from worker.link.embedded import EmbeddedLink

_log = structlog.get_logger("worker.link")

MAX_JOBS: Final = 1_000
_MAX_PATH: Final = 100  # sun_path holds 104 to 108 bytes, by system
_SOCKET: Final = "link.sock"
_WRITE_HIGH: Final = 256 * 1024


class JobServer:
    """Listens on `path` ("" for one in a new private directory)."""

    def __init__(self, link: EmbeddedLink, path: str = "") -> None:
        self._link = link
        self._own_dir = "" if path else _private_dir()
        self.path = path or str(Path(self._own_dir) / _SOCKET)
        self._server: asyncio.Server | None = None
        self.jobs: dict[int, _Job] = {}
        self._numbers = 0
        self._rules_data = b""
        self.unreadable = 0
        self.job_drops = 0  # events that jobs had to drop

    async def start(self) -> None:
        """Raises OSError when the path cannot be used, ValueError when it is too long."""
        if len(os.fsencode(self.path)) > _MAX_PATH:
            raise ValueError(f"the link's socket path is longer than {_MAX_PATH} bytes; choose a shorter one")
        _remove_stale(self.path)
        loop = asyncio.get_running_loop()
        old = os.umask(0o177)  # ours alone: whoever can connect can report outcomes
        try:
            self._server = await loop.create_unix_server(lambda: _Job(self, self._link), self.path)
        finally:
            os.umask(old)
        self._link.core.listen(self._push)
        self._push(self._link.rules)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for job in list(self.jobs.values()):
            job.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            Path(self.path).unlink(missing_ok=True)
            if self._own_dir:
                Path(self._own_dir).rmdir()

    def number(self, job: _Job) -> int:
        """A number for a new job, from 1; 0 when there are too many."""
        if len(self.jobs) >= MAX_JOBS:
            return 0
        self._numbers += 1
        self.jobs[self._numbers] = job
        return self._numbers

    @property
    def rules_data(self) -> bytes:
        """The rules in force as a frame."""
        return self._rules_data

    def _push(self, rules: Rules) -> None:
        try:
            self._rules_data = frames.rules_frame(rules, self._link.worker, self._link.identity.host)
        except frames.BadFrame:
            _log.error("rules too long for the socket", action="link.socket.rules_too_long")
            return
        for job in list(self.jobs.values()):
            job.rules_changed()


class _Job(asyncio.Protocol):
    """One job process."""

    def __init__(self, server: JobServer, link: EmbeddedLink) -> None:
        self._server = server
        self._link = link
        self._core = link.core
        self._reader = frames.FrameReader()
        self._transport: asyncio.WriteTransport | None = None
        self._number = 0
        self._prober: Prober | None = None
        self._paused = False
        self._owes_rules = False
        self._sessions: set[str] = set()

    # ------------------------------------------------------------------ asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._number = self._server.number(self)
        if not self._number:
            _log.error("too many job processes", action="link.socket.full", most=MAX_JOBS)
            self._transport.abort()
            return
        self._prober = self._link.desk.join(self._number, self._probe)
        self.rules_changed()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                events, bad = frames.read_events(body)
                self._server.unreadable += bad
                for event in events:
                    self._take(event)
        except frames.BadFrame as exc:
            self._server.unreadable += 1
            _log.error(
                "job cut off: it sent what cannot be read", action="link.socket.bad_frame", why=str(exc)
            )
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._number:
            return
        self._server.jobs.pop(self._number, None)
        self._link.desk.leave(self._number)
        left = self._core.abandon_job(self._number)
        for name in self._sessions:
            info = self._link.outbox.live(name)
            if info is not None:  # it had no time to say how it ended
                now_ms = self._core.redis_clock.now_ms(self._core.clock())
                self._link.note_session(msgspec.structs.replace(info, ended_at_ms=now_ms, outcome="lost"))
        if left or self._sessions:
            _log.warning(
                "job gone", action="link.socket.job_lost", attempts=left, sessions=len(self._sessions)
            )

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._owes_rules:
            self.rules_changed()

    # ------------------------------------------------------------------ to the job

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def backlog(self) -> int:
        """Bytes that the job has not read yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def rules_changed(self) -> None:
        """Send the rules; while the job does not read, only that it is owed the newest."""
        if self._paused or self._transport is None:
            self._owes_rules = True
            return
        self._owes_rules = False
        self._transport.write(self._server.rules_data)

    def _probe(self, directive: Directive, deadline_mono: float) -> None:
        # A job that does not read runs no probe: the deadline ends it as `local`.
        if self._transport is not None and not self._paused:
            self._transport.write(frames.frame(frames.ProbeFrame(directive, deadline_mono)))

    # ------------------------------------------------------------------ from the job

    def _take(self, event: frames.JobEvent) -> None:
        core = self._core
        match event:
            case frames.Started(attempt, target, _, at_mono):
                now = core.clock()
                core.started(flight_key(self._number, attempt), target, min(at_mono, now))
            case frames.FirstOutput(attempt, waited_ms):
                core.first_output(flight_key(self._number, attempt), waited_ms)
            case frames.Succeeded(attempt, target, tokens, characters, audio_ms):
                use = Use(tokens, characters, audio_ms)
                core.succeeded(flight_key(self._number, attempt), use, target)
            case frames.Failed(attempt, target, kind, fault, retry_after_ms):
                if fault is not None:
                    self._link.note_fault(fault)
                core.failed(flight_key(self._number, attempt), kind, retry_after_ms, target)
            case frames.Abandoned(attempt, target):
                core.abandoned(flight_key(self._number, attempt), target)
            case _:
                self._take_rare(event)

    def _take_rare(self, event: frames.JobEvent) -> None:
        prober = self._prober
        if prober is None:
            return
        match event:
            case frames.Held(target, order, key_fp):
                prober.targets.add(target)
                self._core.hold([TargetSpec(target, order, key_fp)])
            case frames.Offer(role, on):
                (prober.roles.add if on else prober.roles.discard)(role)
            case frames.Probed(result):
                self._link.desk.ended(self._number, result)
            case frames.Session(info):
                if info.ended_at_ms:
                    self._sessions.discard(info.session)
                else:
                    self._sessions.add(info.session)
                self._link.note_session(info)
            case frames.Dropped(count):
                self._server.job_drops += count
                _log.warning("job dropped events", action="link.socket.dropped", count=count)
            case _:
                pass


def _private_dir() -> str:
    """A new directory that only this user can open; under /tmp where TMPDIR is too long for a socket's name."""
    made = tempfile.mkdtemp(prefix="sv-link-")
    if len(os.fsencode(made)) + 1 + len(_SOCKET) <= _MAX_PATH:
        return made
    Path(made).rmdir()
    return tempfile.mkdtemp(prefix="sv-link-", dir="/tmp")


def _remove_stale(path: str) -> None:
    """Remove a socket that a container killed earlier left behind; anything else there is not ours."""
    if Path(path).is_socket():
        Path(path).unlink(missing_ok=True)
