"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.2


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancel a task and wait until it has ended; its result or exception is dropped.

    Cancelled again and again: `asyncio.wait_for` up to Python 3.11, which redis-py sends with, loses a
    cancellation that arrives in the very moment in which what it waits for is done.
    """
    if task is None:
        return
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=AGAIN_S)
    if not task.cancelled():
        task.exception()
