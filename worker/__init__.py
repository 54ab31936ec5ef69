"""The worker half: guarded calls, session recovery, the link to the supervisor, and the stand-ins."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
