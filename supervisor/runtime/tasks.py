"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any


async def end_task(task: asyncio.Task[Any], every_s: float = 0.25) -> None:
    """Cancel a task until it has ended; what it ended with is its own matter.

    Once is not enough before Python 3.12: `asyncio.wait_for`, through which redis-py sends, loses a cancellation
    that comes in the moment in which the awaited thing is done. every_s: leave time for the task's own cleaning up.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=every_s)


async def end(task: asyncio.Task[Any] | None) -> None:
    """The same for a task that may not be there; its exception counts as seen."""
    if task is None:
        return
    await end_task(task)
    if not task.cancelled():
        task.exception()
