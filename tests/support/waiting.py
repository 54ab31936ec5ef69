"""Waiting for a condition with a deadline: the only way a test waits.

`wait_until` for coroutines, `wait_until_sync` for the rest. Both give back the first truthy value of the
predicate, or raise `WaitTimeout` (an `AssertionError`) that says what was waited for and what was seen last.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")

# Far more than anything takes: only a failure waits for it, and a busy machine must not be one.
DEFAULT_TIMEOUT_S = 20.0
DEFAULT_EVERY_S = 0.01


class WaitTimeout(AssertionError):
    """A condition did not come true in time."""


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]],
    what: str,
    timeout: float = DEFAULT_TIMEOUT_S,
    every_s: float = DEFAULT_EVERY_S,
) -> T:
    """Ask `predicate` (plain or async) until it is truthy; `timeout` in seconds. What it raises is raised."""
    deadline_mono = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = await cast("Awaitable[T]", answer) if inspect.isawaitable(answer) else cast("T", answer)
        if value:
            return value
        if time.monotonic() >= deadline_mono:
            raise WaitTimeout(_message(what, timeout, value))
        await asyncio.sleep(every_s)


def wait_until_sync(
    predicate: Callable[[], T],
    what: str,
    timeout: float = DEFAULT_TIMEOUT_S,
    every_s: float = DEFAULT_EVERY_S,
) -> T:
    """The same for code without a loop."""
    deadline_mono = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline_mono:
            raise WaitTimeout(_message(what, timeout, value))
        pause.wait(every_s)


def _message(what: str, timeout: float, value: object) -> str:
    return f"not within {timeout:g} s: {what} (last seen: {value!r})"
