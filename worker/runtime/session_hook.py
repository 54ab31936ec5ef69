"""Guards every session that a job's entrypoint starts, so that the user's own agent needs no change.

Job processes run one call each, so wrapping `AgentSession.start` here touches no other call. The wrapper does
what a user would write by hand: `setup_error_handling(session)` before `start`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from livekit.agents import AgentSession, JobContext

from worker.link.api import Link
from worker.recovery import ErrorRecoveryManager, setup_error_handling
from worker.recovery.phrases import FINAL
from worker.recovery.sounds import APOLOGY, recording
from worker.runtime.rehearsal import Rehearsal, rehearsal_from_environment
from worker.settings import WorkerSettings

log = structlog.get_logger(__name__)

Start = Callable[..., Awaitable[Any]]


def warm_up(settings: WorkerSettings) -> None:
    """For a process that waits for its call: the recorded apologies are decoded (a tenth of a second) and kept."""
    if settings.guard:
        for which in (APOLOGY, FINAL):
            recording(settings.language, which)


class SessionHook:
    """Installed once in a job process, before the entrypoint runs."""

    def __init__(self, *, settings: WorkerSettings, link: Link, ctx: JobContext) -> None:
        self._settings, self._link, self._ctx = settings, link, ctx
        self._rehearsal: Rehearsal | None = rehearsal_from_environment(ctx)

    def install(self) -> None:
        """Wrap `AgentSession.start` for the rest of this process's life."""
        original = cast("Start", cast("Any", AgentSession).start)
        hook = self

        @functools.wraps(original)
        async def start(session: AgentSession[Any], *args: Any, **kwargs: Any) -> Any:
            hook.before(session)
            result = await original(session, *args, **kwargs)
            hook.after()
            return result

        cast("Any", AgentSession).start = start

    def before(self, session: AgentSession[Any]) -> None:
        """Put the session under guard; a session that cannot be guarded is still a call that must go on."""
        if self._settings.guard:
            try:
                manager = setup_error_handling(session, link=self._link, settings=self._settings)
                cast("Any", session).on("close", functools.partial(self._closed, manager))
            except Exception as exc:  # noqa: BLE001  # an unguarded call is better than none
                log.error("session is not guarded", action="guard_failed", exception=type(exc).__name__)
        if self._rehearsal is not None:
            self._rehearsal.attach(session)

    def _closed(self, manager: ErrorRecoveryManager, event: object) -> None:
        """Closing a session leaves its job in the room, and a caller on a dead line."""
        del event
        if manager.options.end_job and manager.report().outcome == "gave_up":
            self._ctx.shutdown("the call was given up after too many errors")

    def after(self) -> None:
        """The session runs: a rehearsal's caller begins to speak."""
        if self._rehearsal is not None:
            self._rehearsal.begin()
