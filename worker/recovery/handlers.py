"""The user's own handlers: `@manager.on("rate_limit")`, `@manager.on("llm")`, `@manager.on("error")` for all.

A handler gets a `RecoveryEvent` and may only watch, change what is said, or replace the decision. Rules: a handler
is waited for at most `PATIENCE_S`, then the call goes on without it; whatever it raises or returns harms nothing.
A plain function runs in a thread of its own, so that one that blocks does not stop the call's event loop: the event's
methods and what reads context variables (`get_job_context()`) work there, a session's own methods (`session.say`) do
not. An awaitable that it returns is awaited in the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import structlog

from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.counters import is_role_or_kind
from worker.recovery.decisions import Do

log = structlog.get_logger("worker.recovery")

PATIENCE_S: Final = 0.25
LIFETIME_S: Final = 30.0
ALL: Final = "error"

Handler = Callable[["RecoveryEvent"], object]
H = TypeVar("H", bound=Callable[..., Any])


@dataclass(slots=True)
class RecoveryEvent:
    """One error, and what is going to be done about it.

    count of limit: errors in a row. do: `nothing`, `apologise` or `final`. text: what will be said; may be set, like
    `say()`, and "" says nothing (a final one then ends the call without words).
    Its methods may be called from any thread, until the decision is carried out; later they change nothing.
    """

    role: Role
    kind: FaultKind
    count: int
    limit: int
    do: Do
    text: str = ""
    language: str = "en"
    session: Any = field(default=None, repr=False)
    closed: bool = field(default=False, repr=False)

    def say(self, text: str) -> None:
        """Say this instead of the fallback message."""
        if isinstance(text, str) and text.strip() and not self.closed:  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's handler may hand in anything
            self.text = text
            if self.do is Do.NOTHING:
                self.do = Do.APOLOGISE

    def ignore(self) -> None:
        """Say nothing: the handler takes care of it, or it does not matter."""
        if not self.closed:
            self.do = Do.NOTHING

    def apologise(self) -> None:
        """Apologise, even over the limit."""
        if not self.closed:
            self.do = Do.APOLOGISE

    def give_up(self) -> None:
        """Say the final message and end the call as configured, even under the limit."""
        if not self.closed:
            self.do = Do.FINAL


class Handlers:
    """Handlers by role, kind, `role.kind`, or `error` for all."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._handlers: list[tuple[str, Handler]] = []
        self._slow: set[Hashable] = set()
        self._busy: set[Hashable] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def on(self, name: str | Role | FaultKind, handler: Handler | None = None) -> Any:
        """Register a handler, or give the decorator that does. Raises ValueError for an unknown name."""
        key = name.value if isinstance(name, Role | FaultKind) else str(name)
        if key != ALL and not is_role_or_kind(key):
            raise ValueError(f"on({key!r}): a role, a kind of fault, role.kind, or {ALL!r} is needed")
        if handler is None:

            def decorate(function: H) -> H:
                self.on(name, function)
                return function

            return decorate
        if not callable(handler):
            raise ValueError(f"on({key!r}): the handler must be a function")  # noqa: TRY004  # one exception type for all wrong use
        self._handlers.append((key, handler))
        return handler

    def off(self, handler: Handler) -> None:
        """Forget a handler."""
        self._slow.discard(_identity(handler))
        self._handlers = [entry for entry in self._handlers if _identity(entry[1]) != _identity(handler)]

    def fitting(self, role: Role, kind: FaultKind) -> list[Handler]:
        """Those to call for an error, in the order they were registered, each once."""
        keys = {ALL, role.value, kind.value, f"{role.value}.{kind.value}"}
        return list({_identity(handler): handler for key, handler in self._handlers if key in keys}.values())

    async def run(self, event: RecoveryEvent) -> None:
        """Call them side by side; returns when all are done or time is up. Never raises."""
        waiting: set[asyncio.Task[Any]] = set()
        for handler in self.fitting(event.role, event.kind):
            identity = _identity(handler)
            if identity in self._busy:
                continue  # its last call has not come back: one that hangs is not started again and again
            self._busy.add(identity)
            task = asyncio.create_task(self._one(handler, event), name="recovery-handler")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if identity not in self._slow:
                waiting.add(task)
        if waiting:
            await asyncio.wait(waiting, timeout=self._patience_s)
        event.closed = True

    async def aclose(self) -> None:
        """Give up on those that still run."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self, handler: Handler, event: RecoveryEvent) -> None:
        begun = asyncio.get_running_loop().time()
        try:
            answer = handler(event) if _is_async(handler) else await self._in_thread(handler, event)
            if inspect.isawaitable(answer):
                async with asyncio.timeout(LIFETIME_S):
                    answer = await cast("Awaitable[object]", answer)
            _take(answer, event)
        except BaseException as exc:  # a user's handler must not end the call, whatever it raises
            if cancelled_by_us(exc):
                raise
            log.warning("handler failed", action="recovery.handler_failed", error=type(exc).__name__)
        finally:
            self._busy.discard(_identity(handler))
            late = asyncio.get_running_loop().time() - begun > self._patience_s
            (self._slow.add if late else self._slow.discard)(_identity(handler))

    async def _in_thread(self, handler: Handler, event: RecoveryEvent) -> object:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[object] = loop.create_future()

        def finish(answer: object, error: BaseException | None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(
                    error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
                )
            else:
                done.set_result(answer)

        context = contextvars.copy_context()  # holds the job, for `get_job_context()`

        def work() -> None:
            answer, failure = None, None
            try:
                answer = context.run(handler, event)
            except BaseException as exc:  # noqa: BLE001  # handed over to the loop's side
                failure = exc
            try:
                loop.call_soon_threadsafe(finish, answer, failure)
            except RuntimeError:
                return  # the loop is gone, and with it whoever waited

        # A daemon: one that never returns must not keep the process from ending.
        threading.Thread(target=work, name="recovery-handler", daemon=True).start()
        return await done


def _identity(handler: Handler) -> Hashable:
    """A handler need not be hashable (a dataclass is not), and a method is another object each time it is named."""
    if inspect.ismethod(handler):
        return id(handler.__self__), id(handler.__func__)
    return id(handler)


def cancelled_by_us(exc: BaseException) -> bool:
    """Whether it is our own task that is being cancelled; a user's code may raise CancelledError as well."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004  # an object with an async __call__ is a handler too
    )


def _take(answer: object, event: RecoveryEvent) -> None:
    """What a handler returned: nothing, words to say, or a decision; anything else is left alone."""
    if answer is None:
        return
    if isinstance(answer, Do):
        if not event.closed:
            event.do = answer
    elif isinstance(answer, str) and answer in {do.value for do in Do}:
        if not event.closed:
            event.do = Do(answer)
    elif isinstance(answer, str):
        event.say(answer)
    else:
        log.warning("handler said nonsense", action="recovery.handler_nonsense", type=type(answer).__name__)
