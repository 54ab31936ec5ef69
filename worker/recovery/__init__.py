"""Session recovery: what a caller hears when services fail. `setup_error_handling(session)` is all it takes."""

from __future__ import annotations

from worker.recovery.audio import AudioFileError
from worker.recovery.decisions import Do
from worker.recovery.handlers import RecoveryEvent
from worker.recovery.manager import ErrorRecoveryManager, manager_of
from worker.recovery.options import RecoveryOptions
from worker.recovery.setup import setup_error_handling
from worker.recovery.stats import ErrorStats, SessionReport

__all__ = [
    "AudioFileError",
    "Do",
    "ErrorRecoveryManager",
    "ErrorStats",
    "RecoveryEvent",
    "RecoveryOptions",
    "SessionReport",
    "manager_of",
    "setup_error_handling",
]
