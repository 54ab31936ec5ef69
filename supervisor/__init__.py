"""The supervisor: adds up what workers report and tells them what to do about each target."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
