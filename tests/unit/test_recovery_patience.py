"""The watchdog over a caller's silence, on virtual time: what it counts from, and when it loses patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from livekit.agents import llm

from supervisor.wire.vocabulary import FaultKind, Role
from tests.support.noted_link import NotedLink
from tests.support.virtual_time import run_virtually
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import RecoveryOptions
from worker.recovery.stats import SilenceMeter
from worker.recovery.watchdogs import Patience
from worker.recovery.work import Work

A, B = "llm:x:a", "llm:x:b"
OPTIONS = RecoveryOptions(patience_s=2.2, stuck_after_s=8.0)
LOOK_S = 0.1  # it looks this often
GivenUp = tuple[Role, FaultKind, float]


class Call:
    """What the watchdog sees of a call whose caller has just said their last word."""

    def __init__(self, targets: list[str], model: Any = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.silence, self.work, self.turn = SilenceMeter(), Work(), 1
        self.link = ObservedLink(NotedLink(), clock=self.loop.time)
        self.session = SimpleNamespace(user_state="listening", agent_state="thinking")
        self.given_up: list[GivenUp] = []
        route = SimpleNamespace(route=lambda: [SimpleNamespace(target=target) for target in targets])
        guards = {Role.LLM: SimpleNamespace(guard=route)} if targets else {}
        guard = SimpleNamespace(guard_of=guards.get, component={Role.LLM: model}.get)
        self.began = self.loop.time()
        self.silence.turn_ended(self.began)
        speaker = SimpleNamespace(speaking=None)
        self.patience = Patience(
            self, cast("Any", self.session), cast("Any", guard), self.link, cast("Any", speaker), OPTIONS,
            self.loop.time,
        )  # fmt: skip

    @property
    def now_s(self) -> float:
        """Since the caller's last word."""
        return self.loop.time() - self.began

    def gave_up_on(self, role: Role, kind: FaultKind) -> None:
        self.given_up.append((role, kind, self.now_s))

    async def until(self, at_s: float) -> None:
        await asyncio.sleep(at_s - self.now_s)

    def tool(self, type_: str, call_id: str = "c1") -> None:
        called = SimpleNamespace(call_id=call_id)
        self.work.tool(SimpleNamespace(type=type_, call_id=call_id, function_call=called), self.loop.time())

    async def end(self) -> list[GivenUp]:
        """A minute after the caller's last word."""
        await self.until(60.0)
        self.patience.end()
        return self.given_up


def given_up(happens: Callable[[Call], Awaitable[None]], *targets: str) -> list[GivenUp]:
    """Who was given up on and when, after a turn in which this happens."""

    async def play() -> list[GivenUp]:
        call = Call(list(targets))
        call.patience.begin(call.turn)
        await happens(call)
        return await call.end()

    return run_virtually(play())


def stuck_at(at_s: float) -> tuple[Role, FaultKind, Any]:
    return (Role.LLM, FaultKind.STALLED, pytest.approx(at_s + LOOK_S / 2, abs=LOOK_S / 2 + 1e-6))


# ------------------------------------------------------------------ stuck


@pytest.mark.parametrize(("state", "noticed"), [("listening", 1), ("thinking", 1), ("speaking", 0)])
def test_a_mute_realtime_model_is_noticed_whatever_its_state(state: str, noticed: int) -> None:
    async def play() -> list[GivenUp]:
        call = Call([], Mock(spec=llm.RealtimeModel))
        call.session.agent_state = state
        call.patience.begin(call.turn)
        return await call.end()

    _, kind, at_s = stuck_at(8.0)
    assert run_virtually(play()) == [(Role.REALTIME, kind, at_s)] * noticed


async def nothing(call: Call) -> None:
    del call


async def a_long_tool(call: Call) -> None:
    await call.until(0.5)
    call.tool("tool_call_started")
    await call.until(9.0)
    call.tool("tool_call_ended")


async def two_tools(call: Call) -> None:
    call.tool("tool_call_started", "c1")
    call.tool("tool_call_started", "c2")
    await call.until(7.0)
    call.tool("tool_call_ended", "c1")
    await call.until(20.0)
    call.tool("tool_call_ended", "c2")


async def a_tool_that_tells_and_goes_on(call: Call) -> None:
    call.tool("tool_call_started")
    await call.until(9.0)
    call.tool("tool_call_updated")
    await call.until(12.0)
    call.tool("tool_call_ended")


async def a_hand_off(call: Call) -> None:
    await call.until(5.0)
    call.work.handed_over(call.loop.time())


async def a_late_reply(call: Call) -> None:
    await call.until(6.0)
    call.work.reply_began(call.loop.time())


async def some_output(call: Call) -> None:
    attempt = call.link.started(A, 2000)
    await call.until(3.0)
    call.link.first_output(attempt, 3000)
    await call.until(6.0)
    call.link.succeeded(attempt)


@pytest.mark.parametrize(
    ("happens", "at_s"),
    [
        (nothing, 8.0),
        (a_long_tool, 9.0 + 8.0),
        (two_tools, 20.0 + 8.0),
        (a_tool_that_tells_and_goes_on, 9.0 + 8.0),
        (a_hand_off, 5.0 + 8.0),
        (a_late_reply, 6.0 - 1.0 + 8.0),
        (some_output, 6.0 + 8.0),
    ],
)
def test_stuck_counts_from_the_agents_last_progress(
    happens: Callable[[Call], Awaitable[None]], at_s: float
) -> None:
    assert given_up(happens) == [stuck_at(at_s)]


def test_a_tool_that_runs_is_never_stuck() -> None:
    async def for_ever(call: Call) -> None:
        call.tool("tool_call_started")

    assert given_up(for_ever) == []


def test_an_answer_after_a_long_tool_ends_the_wait() -> None:
    async def answered(call: Call) -> None:
        await a_long_tool(call)
        await call.until(12.0)
        call.silence.heard(call.loop.time())

    assert given_up(answered) == []


# ------------------------------------------------------------------ hopeless


async def all_hang(call: Call) -> None:
    call.link.failed(call.link.started(A, 2000), FaultKind.SERVER)
    call.link.started(B, 2000)


async def all_hang_after_a_tool(call: Call) -> None:
    call.link.failed(call.link.started(A, 2000), FaultKind.SERVER)
    attempt = call.link.started(B, 2000)
    await call.until(0.5)
    call.link.first_output(attempt, 500)
    call.link.succeeded(attempt)
    await a_long_tool(call)
    call.link.started(B, 2000)


@pytest.mark.parametrize(("happens", "at_s"), [(all_hang, 2.2), (all_hang_after_a_tool, 9.0 + 2.2)])
def test_hopeless_services_have_the_same_time_after_a_tool(
    happens: Callable[[Call], Awaitable[None]], at_s: float
) -> None:
    ((role, kind, when_s),) = given_up(happens, A, B)
    assert role is Role.LLM
    assert kind in (FaultKind.SERVER, FaultKind.FIRST_OUTPUT_TIMEOUT)
    assert at_s <= when_s <= at_s + LOOK_S + 1e-6


def test_one_that_answers_the_request_after_a_tool_is_not_hopeless() -> None:
    """A fault before the tool, and a second target that takes a second: nothing to apologise for."""

    async def answers(call: Call) -> None:
        await all_hang_after_a_tool(call)
        await call.until(9.0 + 2.0)
        call.silence.heard(call.loop.time())

    assert given_up(answers, A, B) == []
