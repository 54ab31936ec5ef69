"""Runs probes in the process that holds the plugins, beside its call: one result for each, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from supervisor.wire.messages import Directive, ProbeResult
from supervisor.wire.targets import parse_target
from supervisor.wire.vocabulary import FaultKind, Role
from worker.link.api import ProbeHandler
from worker.link.tasks import end

_log = structlog.get_logger("worker.link")

_GRACE_S = 0.5  # over the probe's own budget, for what comes after its last byte


class ProbeRunner:
    """`done(result)` gets each result. Of one role's handlers the newest is asked first."""

    def __init__(self, done: Callable[[ProbeResult], None]) -> None:
        self._done = done
        self._handlers: dict[Role, list[ProbeHandler]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def roles(self) -> set[Role]:
        """Roles that somebody here runs probes for."""
        return {role for role, handlers in self._handlers.items() if handlers}

    def offer(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        """Take a handler for a role; returns the way to withdraw it."""
        handlers = self._handlers.setdefault(role, [])
        handlers.append(handler)

        def withdraw() -> None:
            if handler in handlers:
                handlers.remove(handler)

        return withdraw

    def start(self, directive: Directive, deadline_mono: float) -> None:
        """Run one beside everything else."""
        task = asyncio.get_running_loop().create_task(self._run(directive, deadline_mono))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop what runs; it ends as `local`."""
        await end(self._tasks)

    async def _run(self, directive: Directive, deadline_mono: float) -> None:
        began = time.monotonic()
        limit = min(deadline_mono - began, directive.budget_ms / 1000 + _GRACE_S)
        handlers = self._handlers.get(parse_target(directive.target).role, [])
        why = "the probe was stopped" if handlers else "nobody here runs probes for this role any more"
        result: ProbeResult | None = None
        try:
            async with asyncio.timeout(max(0.0, limit)):
                result = await _first_able(handlers[::-1], directive)
        except TimeoutError:
            why = "the probe did not end in time"
        except Exception as exc:  # noqa: BLE001 - a handler's failure is its own, said by type
            why = f"the probe handler failed: {type(exc).__name__}"
            _log.error("probe handler failed", action="link.probe.handler_failed", error=type(exc).__name__)
        finally:
            self._done(result or _local(directive, why, began))


async def _first_able(handlers: list[ProbeHandler], directive: Directive) -> ProbeResult | None:
    """A session may hold one LLM and its agent another: a handler without the target says `local`."""
    result: ProbeResult | None = None
    for handler in handlers:
        result = await handler(directive)
        if result.fault is not FaultKind.LOCAL:
            break
    return result


def _local(directive: Directive, why: str, began: float) -> ProbeResult:
    return ProbeResult(
        worker="-",
        directive=directive.id,
        target=directive.target,
        fault=FaultKind.LOCAL,
        total_ms=int((time.monotonic() - began) * 1000),
        message=why,
    )
