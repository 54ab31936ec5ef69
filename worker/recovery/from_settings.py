"""What the `WORKER_*` settings say about recovery, where the code that sets it up says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from worker.recovery.audio import AudioFileError, load_clip
from worker.recovery.options import RecoveryOptions
from worker.settings import WorkerSettings, WrongSetting, read_settings

log = structlog.get_logger("worker.recovery")


def from_environment() -> WorkerSettings:
    """The environment's settings. A wrong one must not end a call: it is logged, and the defaults hold."""
    try:
        return read_settings()
    except WrongSetting as exc:
        log.error("settings are left out", action="recovery.wrong_setting", reason=str(exc))
        return WorkerSettings.model_construct()


def options_from(settings: WorkerSettings, given: dict[str, Any]) -> RecoveryOptions:
    """`given` goes first."""
    known: dict[str, Any] = {"emoji": settings.log_emoji, "on_exhausted": settings.on_exhausted}
    if settings.audio_cache_dir:
        known["cache_dir"] = settings.audio_cache_dir
    if "language" in settings.model_fields_set:
        known["language"] = settings.language
    return RecoveryOptions(**known | given)


def why_not(error_audio: str) -> str:
    """Why WORKER_ERROR_AUDIO cannot be used, without its path; "" when it can, or is not set."""
    if not error_audio:
        return ""
    try:
        load_clip(error_audio)
    except AudioFileError as exc:
        return str(exc).removeprefix(f"{Path(error_audio)}: ")
    return ""


def check_error_audio(settings: WorkerSettings) -> None:
    """For a worker's start. Raises `WrongSetting` for a sound file that calls could not use."""
    if settings.guard and (reason := why_not(settings.error_audio)):
        raise WrongSetting(f"WORKER_ERROR_AUDIO: {settings.error_audio}: {reason}")


def usable_error_audio(settings: WorkerSettings) -> str | None:
    """The file, or None; in a call a wrong one is only logged."""
    if reason := why_not(settings.error_audio):
        log.error("error audio is not used", action="recovery.wrong_error_audio", reason=reason)
        return None
    return settings.error_audio or None
