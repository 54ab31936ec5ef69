"""Tasks that must not end, and tasks that must."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import structlog

_log = structlog.get_logger("worker.link")

_PAUSE_S: Final = 1.0
_AGAIN_S: Final = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; results and exceptions are dropped.

    Cancelled again and again: `asyncio.wait_for` up to Python 3.11, which redis-py sends with, loses a
    cancellation that arrives in the very moment in which what it waits for is done.
    """
    running = set(tasks)
    ended = list(running)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
    await asyncio.gather(*ended, return_exceptions=True)


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
