"""Who in this container can run a probe, and probes under way: each ends with exactly one result.

Rule: no I/O. A probe goes to a process that holds the target and offers its role, in turn; one that is not
back by its deadline, or whose process died, ends as `local`: it proves nothing either way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from supervisor.wire.messages import Directive, ProbeResult
from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import FaultKind, Role
from worker.link.clip import clip_result

_log = structlog.get_logger("worker.link")

SendProbe = Callable[[Directive, float], None]


@dataclass(slots=True)
class Prober:
    """One process. `send(directive, deadline_mono)` hands it a probe."""

    send: SendProbe
    roles: set[Role] = field(default_factory=set[Role])
    targets: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class _Running:
    directive: Directive
    job: int
    deadline_mono: float


class ProbeDesk:
    """`done(result)` gets every result, ready for `in:<worker>`."""

    def __init__(self, worker: str, done: Callable[[ProbeResult], None]) -> None:
        self._worker = worker
        self._done = done
        self._probers: dict[int, Prober] = {}
        self._running: dict[str, _Running] = {}
        self._turn = 0

    def join(self, job: int, send: SendProbe) -> Prober:
        """A process is there."""
        prober = self._probers[job] = Prober(send)
        return prober

    def leave(self, job: int) -> None:
        """A process is gone: its probes end as `local`."""
        self._probers.pop(job, None)
        for running in [r for r in self._running.values() if r.job == job]:
            self._fail(running.directive, "the process that ran the probe is gone")

    def start(self, directive: Directive, now_mono: float, deadline_mono: float) -> None:
        """Hand a probe to the next process that can run it. One directive is run once."""
        if directive.id in self._running:
            return
        if now_mono >= deadline_mono:
            _log.info("probe too late", action="link.probe.late", target=directive.target)
            return
        try:
            role = parse_target(directive.target).role
        except TargetError:
            self._fail(directive, "the directive's target is not a target id")
            return
        able = sorted(
            job for job, p in self._probers.items() if role in p.roles and directive.target in p.targets
        )
        if not able:
            self._fail(directive, "no live call in this worker holds the target")
            return
        # The first one after the last that had a turn: no call is bothered twice in a row.
        job = next((job for job in able if job > self._turn), able[0])
        self._turn = job
        self._running[directive.id] = _Running(directive, job, deadline_mono)
        self._probers[job].send(directive, deadline_mono)

    def ended(self, job: int, result: ProbeResult) -> None:
        """A process has a result. Only the one that was asked is believed, and once."""
        running = self._running.get(result.directive)
        if running is None or running.job != job:
            return
        del self._running[result.directive]
        self._done(
            msgspec.structs.replace(clip_result(result), worker=self._worker, target=running.directive.target)
        )

    def tick(self, now_mono: float) -> None:
        """Time went on: what is past its deadline ends as `local`."""
        for running in [r for r in self._running.values() if now_mono >= r.deadline_mono]:
            self._fail(running.directive, "no result by the deadline")

    @property
    def probers(self) -> list[Prober]:
        """The processes that are there."""
        return list(self._probers.values())

    @property
    def running(self) -> int:
        return len(self._running)

    def _fail(self, directive: Directive, message: str) -> None:
        self._running.pop(directive.id, None)
        _log.info("probe not run", action="link.probe.failed", target=directive.target, why=message)
        self._done(
            ProbeResult(
                worker=self._worker,
                directive=directive.id,
                target=directive.target,
                fault=FaultKind.LOCAL,
                message=message,
            )
        )
