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

_log = structlog.get_logger("worker.link")

_GRACE_S = 0.5  # over the probe's own budget, for what comes after its last byte


class ProbeRunner:
    """`done(result)` gets each result. Handlers of one role take turns by being the last one offered."""

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
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, directive: Directive, deadline_mono: float) -> None:
        began = time.monotonic()
        limit = min(deadline_mono - began, directive.budget_ms / 1000 + _GRACE_S)
        why = "the probe was stopped"
        result: ProbeResult | None = None
        try:
            handler = self._handlers[parse_target(directive.target).role][-1]
            async with asyncio.timeout(max(0.0, limit)):
                result = await handler(directive)
        except TimeoutError:
            why = "the probe did not end in time"
        except (KeyError, IndexError):
            why = "nobody here runs probes for this role any more"
        except Exception as exc:  # noqa: BLE001 - a handler's failure is its own, said by type
            why = f"the probe handler failed: {type(exc).__name__}"
            _log.error("probe handler failed", action="link.probe.handler_failed", error=type(exc).__name__)
        finally:
            self._done(result or _local(directive, why, began))


def _local(directive: Directive, why: str, began: float) -> ProbeResult:
    return ProbeResult(
        worker="-",
        directive=directive.id,
        target=directive.target,
        fault=FaultKind.LOCAL,
        total_ms=int((time.monotonic() - began) * 1000),
        message=why,
    )
