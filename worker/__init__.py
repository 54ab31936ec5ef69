"""The worker half: guarded calls, session recovery, the link to the supervisor, and the stand-ins.

`from worker import setup_error_handling, ErrorRecoveryManager` is all that an agent of one's own needs; they are
imported when they are asked for, so that `import worker` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.recovery import ErrorRecoveryManager, setup_error_handling

__version__ = "0.1.0"
__all__ = ["ErrorRecoveryManager", "__version__", "setup_error_handling"]


def __getattr__(name: str) -> Any:
    if name in ("ErrorRecoveryManager", "setup_error_handling"):
        import worker.recovery

        return getattr(worker.recovery, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
