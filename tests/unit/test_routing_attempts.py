"""Attempts, turns and clocks that the three guards share."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.core.decide import GiveUp, Retry, TryNext
from supervisor.wire.vocabulary import FaultKind, Phase, Role, State
from tests.support.noted_link import NotedLink
from tests.support.waiting import wait_until
from worker.guard.faults import Fault
from worker.guard.names import Child, children_of, model_of, provider_of
from worker.guard.routing import Guard, GuardOptions, HedgeBudget, Stall, Woke

A, B = "llm:a:m", "llm:b:m"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guard_of(link: NotedLink, clock: Clock | None = None) -> Guard[str]:
    children = [Child(A, "plugin a", 0), Child(B, "plugin b", 1)]
    return Guard(
        Role.LLM,
        children,
        link,
        session="s",
        options=GuardOptions(latency_budget_ms=2500),
        clock=clock or Clock(),
    )


def test_a_guard_says_what_it_holds() -> None:
    link = NotedLink()
    guard_of(link)
    assert [(spec.id, spec.order) for spec in link.held] == [(A, 0), (B, 1)]


def test_without_any_rules_the_users_own_order_holds() -> None:
    guard = guard_of(NotedLink())
    assert [child.target for child in guard.route()] == [A, B]
    assert guard.rule(A).stale


def test_a_condemned_target_leaves_the_route() -> None:
    link = NotedLink()
    guard = guard_of(link)
    link.rule(A, state=State.UNHEALTHY, admit=0.0)
    assert [child.target for child in guard.route()] == [B]
    link.rule(B, state=State.UNHEALTHY, admit=0.0)
    assert {child.target for child in guard.route()} == {A, B}, "panic: none is admitted, so all are"


def test_an_attempt_ends_once() -> None:
    link = NotedLink()
    turn = guard_of(link).turn()
    attempt = turn.begin(turn.child(TryNext(A)))
    attempt.first_output()
    attempt.first_output()
    attempt.succeeded()
    attempt.abandoned()
    turn.fail(attempt, Fault(FaultKind.CUT))
    assert link.ends() == [(A, "ok")]
    assert link.double_ends == 0


def test_a_turn_moves_on_then_retries_then_gives_up() -> None:
    link, clock = NotedLink(), Clock()
    turn = guard_of(link, clock).turn()
    steps = [turn.next()]
    while not isinstance(steps[-1], GiveUp):
        attempt = turn.begin(turn.child(steps[-1]))
        clock.now += 0.1
        steps.append(turn.fail(attempt, Fault(FaultKind.SERVER, status=500, phase=Phase.CONNECT)))
    assert [type(step) for step in steps] == [TryNext, TryNext, Retry, Retry, GiveUp]
    actions = [attempt.event.action for attempt in link.attempts if attempt.event]
    assert actions == ["next", "retry", "retry", "gave_up:attempts"]
    assert [attempt.event.attempt for attempt in link.attempts if attempt.event] == [1, 2, 3, 4]
    assert [attempt.event.waited_ms for attempt in link.attempts if attempt.event] == [100] * 4


def test_a_stale_connection_is_honoured_once() -> None:
    turn = guard_of(NotedLink()).turn()
    first = turn.begin(turn.child(TryNext(A)))
    assert turn.fail(first, Fault(FaultKind.LOCAL), again_at_once=True) == Retry(A, 0)
    second = turn.begin(turn.child(TryNext(A)))
    assert turn.fail(second, Fault(FaultKind.LOCAL), again_at_once=True) == TryNext(B)


def test_the_latency_budget_runs_from_the_turns_begin() -> None:
    clock = Clock()
    turn = guard_of(NotedLink(), clock).turn()
    clock.now += 2.0
    assert turn.budget_left_ms == 500
    turn.restart_budget()
    assert turn.budget_left_ms == 2500


async def test_waiting_ends_with_the_future_the_deadline_or_a_verdict() -> None:
    link = NotedLink()
    link.deadlines(A, B, first_output_ms=40, stall_ms=100)
    guard = guard_of(link)  # its clock stands: what is left until a deadline does not shrink meanwhile
    turn = guard.turn()
    loop = asyncio.get_running_loop()

    pending: asyncio.Future[int] = loop.create_future()
    attempt = turn.begin(guard.child(A))
    assert await attempt.wait(pending, timeout_s=0.001) is Woke.TIMEOUT
    assert await attempt.wait(pending) is Woke.DEADLINE
    assert not pending.cancelled()
    pending.set_result(1)
    assert await attempt.wait(pending) is Woke.READY
    attempt.abandoned()

    link.rule(A, first_output_ms=60_000)
    hanging: asyncio.Future[int] = loop.create_future()
    second = guard.turn().begin(guard.child(A))
    waiting = asyncio.ensure_future(second.wait(hanging))
    await asyncio.sleep(0)
    link.rule(A, state=State.UNHEALTHY, admit=0.0)
    assert await waiting is Woke.VERDICT
    await guard.aclose()
    assert link.ends()[-1] == (A, "abandoned")


async def test_an_attempt_that_is_heard_is_not_given_up_on_a_verdict() -> None:
    link = NotedLink()
    guard = guard_of(link)
    attempt = guard.turn().begin(guard.child(A))
    verdict = attempt.verdict()
    attempt.first_output()
    link.rule(A, state=State.UNHEALTHY, admit=0.0)
    assert not verdict.done()


async def test_a_stall_fires_once_and_not_while_something_comes() -> None:
    fired: list[int] = []
    lives = iter([True, False])
    stall = Stall(lambda: 0.01, lambda: fired.append(1), alive=lambda: next(lives))
    await wait_until(lambda: fired, "the stall")
    assert stall.fired
    assert fired == [1]
    stopped = Stall(lambda: 0.001, lambda: fired.append(2))
    stopped.stop()
    later = Stall(lambda: 0.005, lambda: fired.append(3))
    await wait_until(lambda: later.fired, "the later one")
    assert fired == [1, 3]


def test_hedges_are_few() -> None:
    budget = HedgeBudget()
    assert budget.take(0.0), "one to begin with"
    assert not budget.take(100.0), "no attempts, no more of them"
    for _ in range(40):
        budget.attempt()
    assert budget.take(100.0)
    assert not budget.take(105.0), "one in ten seconds"
    assert budget.take(110.0)


def test_a_guard_needs_children_with_ids_of_their_own() -> None:
    with pytest.raises(ValueError, match="at least one llm plugin"):
        Guard(Role.LLM, [], NotedLink())
    with pytest.raises(ValueError, match="same target id"):
        Guard(Role.LLM, [Child(A, "x"), Child(A, "y")], NotedLink())


class Plugin:
    label = "livekit.plugins.deepgram.stt.STT"
    model = "nova-3"
    provider = "Deep gram/EU"


class Own:
    label = "mine.LLM"
    model = ""
    provider = "My Gateway/eu"


def test_targets_are_named_after_the_plugin() -> None:
    assert (provider_of(Plugin()), model_of(Plugin())) == ("deepgram", "nova-3")
    assert (provider_of(Own()), model_of(Own())) == ("my-gateway-eu", "unknown")
    children = children_of(Role.LLM, [Plugin(), Plugin(), Own()], names={2: ("gateway", "large")})
    assert [child.target for child in children] == [
        "llm:deepgram:nova-3", "llm:deepgram:nova-3#2", "llm:gateway:large"
    ]  # fmt: skip
