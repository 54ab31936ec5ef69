"""`setup_error_handling(session)`: one line, before or after `session.start`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from livekit.agents import AgentSession

from worker.link.api import Link
from worker.recovery.counters import Limits
from worker.recovery.from_settings import from_environment
from worker.recovery.manager import ErrorRecoveryManager, manager_of
from worker.recovery.options import RecoveryOptions
from worker.settings import WorkerSettings

log = structlog.get_logger("worker.recovery")


def setup_error_handling(
    session: AgentSession[Any],
    max_retries: Limits | None = None,
    custom_audio_path: str | Path | None = None,
    *,
    link: Link | None = None,
    settings: WorkerSettings | None = None,
    options: RecoveryOptions | None = None,
    **given: Any,
) -> ErrorRecoveryManager:
    """Guard a session's services, and see to it that its caller never hears silence.

    session: any livekit AgentSession, started or not. max_retries: errors in a row, per role and kind, that the
    caller gets an apology for; one more, and the final message ends the call (see `on_exhausted`).
    custom_audio_path: a sound file for when the voice is gone. link: this process's link to the supervisor (made
    when left out; without REDIS_URL the session guards itself alone). More options by name: `RecoveryOptions`.

    What is not given here comes from `settings`, and those from the environment (WORKER_*): a wrong one there ends no
    call, it is logged, and the defaults hold for all of them. Without any, max_retries is 3.

    A second call for the same session gives the same manager, with the new limit and file if any were given.
    Raises `AudioFileError` for a sound file that cannot be used, ValueError for other wrong arguments.
    """
    manager = manager_of(session)
    if manager is None:
        settings = settings or from_environment()
        manager = ErrorRecoveryManager(
            max_retries, custom_audio_path, settings=settings, options=options, **given
        )
        return manager.attach(session, link=link, settings=settings)
    if link is None:
        log.warning("error handling is set up already: same manager", action="recovery.set_up_twice")
    if max_retries is not None:
        manager.counters.set_limits(max_retries)
    if custom_audio_path is not None:
        manager.sounds.use(custom_audio_path)
    return manager.attach(session, link=link, settings=settings)
