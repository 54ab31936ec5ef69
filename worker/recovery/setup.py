"""`setup_error_handling(session)`: one line, before or after `session.start`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
from livekit.agents import AgentSession

from worker.link.api import Link
from worker.recovery.counters import DEFAULT_MAX_RETRIES, Limits
from worker.recovery.manager import ErrorRecoveryManager, manager_of
from worker.recovery.options import RecoveryOptions
from worker.settings import WorkerSettings

log = structlog.get_logger("worker.recovery")


def setup_error_handling(
    session: AgentSession[Any],
    max_retries: Limits = DEFAULT_MAX_RETRIES,
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

    A second call for the same session gives the same manager, with the new limit and file if any were given.
    Raises `AudioFileError` for a sound file that cannot be used, ValueError for other wrong arguments.
    """
    manager = manager_of(session)
    if manager is None:
        if settings is not None and max_retries == DEFAULT_MAX_RETRIES:
            max_retries = settings.max_retries
        manager = ErrorRecoveryManager(
            max_retries,
            custom_audio_path or (settings.error_audio if settings is not None else None) or None,
            options=options or _options(settings, given),
        )
        return manager.attach(session, link=link, settings=settings)
    if link is None:
        log.warning("error handling is set up already: same manager", action="recovery.set_up_twice")
    if max_retries != DEFAULT_MAX_RETRIES:
        manager.counters.set_limits(max_retries)
    if custom_audio_path is not None:
        manager.sounds.use(custom_audio_path)
    return manager.attach(session, link=link, settings=settings)


def _options(settings: WorkerSettings | None, given: dict[str, Any]) -> RecoveryOptions:
    known: dict[str, Any] = {}
    if settings is not None:
        known = {"emoji": settings.log_emoji, "on_exhausted": settings.on_exhausted}
    if settings is not None and settings.audio_cache_dir:
        known["cache_dir"] = settings.audio_cache_dir
    if settings is not None and "language" in settings.model_fields_set:
        known["language"] = settings.language
    return RecoveryOptions(**known | given)
