"""Tasks that must not end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

_log = structlog.get_logger("worker.link")

_PAUSE_S: Final = 1.0


async def forever(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` again whenever it fails: a bug in one round must not leave the calls without a link."""
    while True:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 - logged by type; the text may hold an address
            _log.error("link task failed", action="link.task.failed", task=name, error=type(exc).__name__)
        await asyncio.sleep(_PAUSE_S)
