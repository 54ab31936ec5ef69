"""A user's handlers may speak, decide or watch; one that hangs, raises or says nonsense costs a call nothing."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.waiting import wait_until
from worker.recovery import Do, RecoveryEvent
from worker.recovery.handlers import Handlers


def event(role: Role = Role.LLM, kind: FaultKind = FaultKind.RATE_LIMIT) -> RecoveryEvent:
    return RecoveryEvent(role=role, kind=kind, count=1, limit=3, do=Do.APOLOGISE, text="Sorry.")


async def test_by_role_kind_both_and_all() -> None:
    handlers, seen = Handlers(), list[str]()
    for name in ("llm", "rate_limit", "llm.rate_limit", "error", "tts", "llm.cut"):
        handlers.on(name, lambda _, name=name: seen.append(name))
    await handlers.run(event())
    assert sorted(seen) == ["error", "llm", "llm.rate_limit", "rate_limit"]


@pytest.mark.parametrize(
    "name",
    [
        "lmm",
        "llm.",
        "",
        "llm.rate_limit.x",
        "rate limit",
        "llm.tts",
        "rate_limit.llm",
        "llm.error",
        "error.llm",
    ],
)
def test_names_that_do_not_exist(name: str) -> None:
    with pytest.raises(ValueError, match="is needed"):
        Handlers().on(name, print)


def test_what_is_no_function() -> None:
    with pytest.raises(ValueError, match="function"):
        Handlers().on("llm", "print")  # pyright: ignore[reportArgumentType] - wrong on purpose


async def test_words_decisions_and_watching() -> None:
    handlers = Handlers()
    answers: dict[str, Any] = {
        "words": "Wait.",
        "decision": Do.FINAL,
        "word for one": "final",
        "nothing": None,
    }
    for answer in answers.values():
        handler = handlers.on("error", lambda _, answer=answer: answer)
        got = event()
        await handlers.run(got)
        handlers.off(handler)
        answers[next(k for k, v in answers.items() if v is answer)] = (got.do, got.text)
    assert answers == {
        "words": (Do.APOLOGISE, "Wait."),
        "decision": (Do.FINAL, "Sorry."),
        "word for one": (Do.FINAL, "Sorry."),
        "nothing": (Do.APOLOGISE, "Sorry."),
    }


async def test_methods_of_the_event() -> None:
    handlers = Handlers()

    @handlers.on("llm")
    async def handle(got: RecoveryEvent) -> None:
        got.ignore()
        got.say("Instead.")

    got = event()
    await handlers.run(got)
    assert (got.do, got.text) == (Do.APOLOGISE, "Instead.")
    got.give_up()
    assert got.do is Do.APOLOGISE, "too late: it is being carried out"


def raises_type_error(_: RecoveryEvent) -> None:
    raise TypeError("mine")


async def raises_late(_: RecoveryEvent) -> None:
    raise ValueError("mine")


def exits(_: RecoveryEvent) -> None:
    raise SystemExit(3)


def wrong_arguments() -> None:
    return None


def nonsense(_: RecoveryEvent) -> object:
    return {"what": 7}


@pytest.mark.parametrize("handler", [raises_type_error, raises_late, exits, wrong_arguments, nonsense])
async def test_failing_ones_change_nothing(handler: Any) -> None:
    handlers = Handlers()
    handlers.on("error", handler)
    handlers.on("error", lambda _: "Still said.")
    got = event()
    await handlers.run(got)
    assert (got.do, got.text) == (Do.APOLOGISE, "Still said.")


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_one_that_hangs_for_ever_is_waited_for_once(style: str) -> None:
    handlers, started, release = Handlers(patience_s=0.5), list[int](), threading.Event()

    def hang(_: RecoveryEvent) -> None:
        started.append(1)
        release.wait(30)

    async def hang_async(_: RecoveryEvent) -> None:
        started.append(1)
        await asyncio.Event().wait()

    handlers.on("error", hang if style == "sync" else hang_async)
    try:
        got = event()
        await handlers.run(got)
        assert (got.do, got.closed) == (Do.APOLOGISE, True)
        begun = time.monotonic()
        for _ in range(20):
            await handlers.run(event())
        assert started == [1], "it is not started again while it hangs"
        assert time.monotonic() - begun < 5.0, "and not waited for again: 20 waits would take 10 s"
    finally:
        release.set()
        await handlers.aclose()


async def test_a_late_answer_changes_nothing() -> None:
    handlers, go, done = Handlers(patience_s=0.01), asyncio.Event(), list[int]()

    @handlers.on("error")
    async def late(got: RecoveryEvent) -> str:
        await go.wait()
        got.give_up()
        done.append(1)
        return "Too late."

    got = event()
    await handlers.run(got)
    go.set()
    await wait_until(lambda: done, "the handler ends")
    assert (got.do, got.text) == (Do.APOLOGISE, "Sorry.")
    await handlers.aclose()


async def test_plain_functions_do_not_stop_the_loop() -> None:
    handlers, release = Handlers(patience_s=5.0), threading.Event()
    handlers.on("error", lambda _: release.wait(10))
    running = asyncio.ensure_future(handlers.run(event()))
    await asyncio.sleep(0)
    assert not running.done()
    release.set()  # only a loop that still runs gets here
    await running


@dataclass
class Noting:
    """A handler that cannot be hashed."""

    seen: list[str] = field(default_factory=list[str])

    def __call__(self, got: RecoveryEvent) -> None:
        self.seen.append(got.kind.value)

    def method(self, got: RecoveryEvent) -> None:
        self.seen.append(f"method {got.kind.value}")


async def test_handlers_that_cannot_be_hashed_and_methods() -> None:
    handlers, noting = Handlers(patience_s=5.0), Noting()
    handlers.on("error", noting)
    handlers.on("error", noting.method)
    handlers.on("llm", noting.method)
    await handlers.run(event())
    assert sorted(noting.seen) == ["method rate_limit", "rate_limit"], "each once"
    handlers.off(noting.method)
    await handlers.run(event())
    assert noting.seen.count("rate_limit") == 2
    assert len(noting.seen) == 3


JOB: contextvars.ContextVar[str] = contextvars.ContextVar("job")


async def test_a_plain_function_sees_the_calls_context() -> None:
    handlers = Handlers(patience_s=5.0)
    JOB.set("job of the call")
    handlers.on("error", lambda _: JOB.get())
    got = event()
    await handlers.run(got)
    assert got.text == "job of the call"


async def test_an_awaitable_that_a_plain_callable_gives_is_awaited() -> None:
    async def words(got: RecoveryEvent) -> str:
        return f"{got.count} of {got.limit}"

    handlers = Handlers(patience_s=5.0)
    handlers.on("error", lambda got: words(got))
    got = event()
    await handlers.run(got)
    assert got.text == "1 of 3"


async def test_a_cancelled_error_of_the_handlers_own_changes_nothing() -> None:
    handlers = Handlers(patience_s=5.0)

    @handlers.on("error")
    async def cancelled(_: RecoveryEvent) -> None:
        raise asyncio.CancelledError

    with structlog.testing.capture_logs() as lines:
        await handlers.run(event())
    assert [line["action"] for line in lines] == ["recovery.handler_failed"]
