"""What the three guards share: who may be asked, in which order, and the life of one attempt.

A `Guard` belongs to one role of one session. A `Turn` is one thing the caller waits for (an answer, a spoken
segment, an utterance); it makes `Attempt`s until one succeeds or `decide` gives up. Rules:
- nothing here does I/O, and everything runs in the session's event loop;
- an attempt ends exactly once, whatever order success, fault and cancellation arrive in;
- a wait never cancels what it waits for (`asyncio.wait`, not `wait_for`): cancelling a plugin's
  `__anext__` breaks its stream. Losers are closed in tasks that `Guard.keep` holds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import structlog

from supervisor.core.admission import Route, Router
from supervisor.core.decide import Decision, GiveUp, Option, Retry, Situation, TryNext, decide
from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import FaultKind, Role, State
from worker.guard.attempt import Attempt, Woke
from worker.guard.faults import Fault
from worker.guard.names import Child
from worker.guard.timing import HedgeBudget, Stall, TurnClock
from worker.link.api import Link, Rule, Rules, TargetSpec

__all__ = ["Attempt", "Guard", "GuardOptions", "HedgeBudget", "Stall", "Turn", "TurnClock", "Woke"]

log = structlog.stdlib.get_logger("worker.guard")

P = TypeVar("P")

DEFAULT_LATENCY_BUDGET_MS: Final = 2500
ALONE: Final = 0.4
"""Share of a turn's latency budget that is spent on one target alone: what is left is for the next one to answer in."""
LATE_FOR_S: Final = 20.0
"""How long a call remembers that a target kept it waiting: a few turns; the fleet's verdict is there long before."""


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """latency_budget_ms: how long a turn may retry and hedge before its first output."""

    latency_budget_ms: int = DEFAULT_LATENCY_BUDGET_MS
    hedge: bool = True
    total_cap: int = 8


@dataclass(slots=True)
class _Tried:
    attempts: int = 0
    last: FaultKind | None = None
    retry_after_ms: int = 0
    again_at_once: bool = False


class Turn(Generic[P]):
    """One thing the caller waits for. `number` counts from 1 within the session and role."""

    __slots__ = ("_guard", "_tried", "attempts", "faults", "number", "started_mono")

    def __init__(self, guard: Guard[P], number: int) -> None:
        self._guard = guard
        self._tried: dict[str, _Tried] = {}
        self.number = number
        self.attempts = 0
        self.faults: list[tuple[str, Fault]] = []
        self.started_mono = guard.clock()

    @property
    def budget_left_ms(self) -> int:
        """What is left of the latency budget; below 0 when it is spent."""
        spent = (self._guard.clock() - self.started_mono) * 1000
        return int(self._guard.options.latency_budget_ms - spent)

    def restart_budget(self) -> None:
        """Something was heard since: what follows has a latency budget of its own."""
        self.started_mono = self._guard.clock()

    def begin_answer(self, clock: TurnClock) -> None:
        """The model begins to answer: what it used of the budget is gone for the voice."""
        clock.answered(self.started_mono, self._guard.clock())

    def begin_words(self, clock: TurnClock) -> None:
        """There is text to speak: the budget goes on from the model's, not from when the stream was opened."""
        self.started_mono = clock.began(self._guard.clock())

    def begin(self, child: Child[P]) -> Attempt[P]:
        """Start an attempt now: its first-output deadline runs from here."""
        self.attempts += 1
        tried = self._tried.setdefault(child.target, _Tried())
        tried.attempts += 1
        tried.again_at_once = False
        attempt = Attempt(self._guard, self, child, self.attempts, self._guard.rule(child.target))
        self._guard.remember(attempt)
        return attempt

    def next(self) -> Decision:
        """Whom to ask now, without a new fault (at the start, after a verdict)."""
        if not self._tried:
            for target in self._guard.picture().targets:
                return TryNext(target)
        return decide(self._situation())

    def untried(self) -> Child[P] | None:
        """The best admitted target that was not asked this turn: whom to hedge with."""
        for child in self._guard.route():
            if child.target not in self._tried:
                return child
        return None

    def hedge_at_mono(self, attempt: Attempt[P], *, refused: bool = False) -> float | None:
        """When the next target is to be asked beside this late one; None: never. refused: the budget of hedges was
        spent when this was due, so it is due when no budget of hedges is needed.
        """
        snapshot = attempt.snapshot
        if not self._guard.options.hedge or not snapshot.hedge_ms or snapshot.panic:
            return None
        usual = attempt.started_mono + snapshot.hedge_ms / 1000
        return max(usual, self._alone_until_mono) if refused else usual

    @property
    def _alone_until_mono(self) -> float:
        return self.started_mono + ALONE * self._guard.options.latency_budget_ms / 1000

    def hedge(self, attempt: Attempt[P], hedges: HedgeBudget) -> Child[P] | None:
        """Whom to ask beside a late attempt, now; a hedge is spent then. None: nobody, or there is no budget.

        No budget of hedges is needed where this call has just waited for that target in vain, for it would move on to
        the next one anyway, only later; nor when so much of the turn's latency budget is gone that the next one could
        no longer answer in time.
        """
        child = self.untried()
        if child is None:
            return None
        now = self._guard.clock()
        if self._guard.is_late(attempt.child.target) or now >= self._alone_until_mono or hedges.take(now):
            return child
        return None

    def fail(
        self, attempt: Attempt[P], fault: Fault, *, again_at_once: bool = False, continuing: bool = False
    ) -> Decision:
        """The attempt ended badly: decide what now, then report both in one line.

        again_at_once: the fault was none of the service's (a pooled socket found dead): the same target
        without a pause, once per turn and target. continuing: the caller has heard a part, the next goes on.
        """
        tried = self._tried.setdefault(attempt.child.target, _Tried())
        tried.again_at_once = again_at_once and tried.last is None
        tried.last = fault.kind
        tried.retry_after_ms = fault.retry_after_ms
        self.faults.append((attempt.child.target, fault))
        decision = decide(self._situation())
        word = _word(decision, continuing=continuing)
        if attempt.report(fault, word):
            log.info(
                "attempt failed", action="guard.fault", target=attempt.child.target, kind=fault.kind.value,
                status=fault.status, phase=fault.phase.value, waited_ms=attempt.waited_ms, then=word,
                session=self._guard.session, turn=self.number,
            )  # fmt: skip
        return decision

    def child(self, decision: TryNext | Retry) -> Child[P]:
        """The child that a decision names."""
        return self._guard.child(decision.target)

    def _situation(self) -> Situation:
        route = self._guard.picture()
        options = [self._option(target, panic=route.panic) for target in route.targets]
        return Situation(
            route=options,
            budget_left_ms=self.budget_left_ms,
            jitter=random.random(),
            total_attempts=self.attempts,
            total_cap=self._guard.options.total_cap,
        )

    def _option(self, target: str, *, panic: bool) -> Option:
        rule = self._guard.rule(target)
        tried = self._tried.get(target)
        s = rule.snapshot
        return Option(
            target=target,
            attempts=tried.attempts if tried else 0,
            last=tried.last if tried else None,
            again_at_once=tried.again_at_once if tried else False,
            retry_after_ms=tried.retry_after_ms if tried else 0,
            max_attempts=s.max_attempts,
            retry_allowed=rule.retry_allowed,
            panic=panic or s.panic,
            backoff_base_ms=s.backoff_base_ms,
            backoff_cap_ms=s.backoff_cap_ms,
            backoff_jitter=s.backoff_jitter,
        )


def _word(decision: Decision, *, continuing: bool) -> str:
    if continuing and not isinstance(decision, GiveUp):
        return "continue"
    match decision:
        case TryNext():
            return "next"
        case Retry():
            return "retry"
        case GiveUp(reason):
            return f"gave_up:{reason}"


class Guard(Generic[P]):
    """The targets of one role in one session, and what the link says about them."""

    def __init__(
        self,
        role: Role,
        children: Sequence[Child[P]],
        link: Link,
        *,
        session: str = "",
        session_started_at_ms: int = 0,
        options: GuardOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """session_started_at_ms: wall time of the call's begin (0: now). ValueError without children."""
        if not children:
            raise ValueError(f"at least one {role.value} plugin is needed")
        self.role = role
        self.children = tuple(children)
        self.link = link
        self.session = session
        self.session_started_at_ms = session_started_at_ms or time.time_ns() // 1_000_000
        self.options = options or GuardOptions()
        self.clock = clock
        self._by_target = {child.target: child for child in self.children}
        if len(self._by_target) != len(self.children):
            raise ValueError(f"two {role.value} plugins have the same target id; give them names")
        self._live: set[Attempt[P]] = set()
        self._kept: set[asyncio.Task[Any]] = set()
        self._late: dict[str, float] = {}
        self._turns = 0
        specs = [TargetSpec(id=c.target, order=c.order, key_fp=c.key_fp) for c in self.children]
        self._router = Router(specs)
        link.hold(specs)
        self._stop_rules = link.on_rules(self._on_rules)

    def child(self, target: str) -> Child[P]:
        """The child with that target id. Raises KeyError."""
        return self._by_target[target]

    def rule(self, target: str) -> Rule:
        """What holds for a target now; the built-in defaults when nothing was ever said."""
        return self.link.rules.by_target.get(target) or _default_rule(target)

    def route(self) -> list[Child[P]]:
        """Admitted targets, best first (in panic: all but condemned keys). Empty: every key is condemned."""
        return [self._by_target[target] for target in self.picture().targets]

    def picture(self) -> Route:
        """The route as `supervisor.core.admission` has it, with whether it is panic."""
        rules = self.link.rules
        # Verdicts are dated by Redis: the call's begin is compared with them on the same clock.
        started_at_ms = self.session_started_at_ms + rules.clock_offset_ms
        return self._router.route(rules.by_target, self.session, started_at_ms, self.clock())

    def turn(self) -> Turn[P]:
        """The next turn begins now."""
        self._turns += 1
        return Turn(self, self._turns)

    def keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something (closing a loser) in a task that nobody waits for; its errors are only logged."""
        task = asyncio.ensure_future(work)
        self._kept.add(task)
        task.add_done_callback(self._kept_done)
        return task

    async def aclose(self) -> None:
        """Stop listening, give up live attempts, wait for kept tasks (at most 2 s). Doing it again is harmless."""
        self._stop_rules()
        self._stop_rules = lambda: None
        for attempt in list(self._live):
            attempt.abandoned()
        if self._kept:
            _, late = await asyncio.wait(self._kept, timeout=2.0)
            for task in late:
                task.cancel()

    def remember(self, attempt: Attempt[P]) -> None:
        """For `Turn.begin`."""
        self._live.add(attempt)

    def forget(self, attempt: Attempt[P]) -> None:
        """For `Attempt`."""
        self._live.discard(attempt)

    def answers(self, target: str) -> None:
        """For `Attempt`: the target gave output to this call."""
        self._late.pop(target, None)

    def kept_waiting(self, target: str) -> None:
        """For `Attempt`: one ended without output after more than the target's usual time."""
        self._late[target] = self.clock()

    def is_late(self, target: str) -> bool:
        """Whether this call's newest attempt on the target waited in vain, a short while ago."""
        return self.clock() - self._late.get(target, float("-inf")) < LATE_FOR_S

    def check(self, attempt: Attempt[P]) -> None:
        """Tell a waiting attempt to move on if its target is admitted no more and another one is untried."""
        if attempt.done or attempt.heard:
            return
        if attempt.child.target in self.picture().targets:
            return
        if attempt.turn.untried() is not None:
            attempt.move_on()

    def _on_rules(self, _: Rules) -> None:
        for attempt in list(self._live):
            self.check(attempt)

    def _kept_done(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.debug("a closing task failed", action="guard.close_failed", error=type(exc).__name__)


@lru_cache(maxsize=256)
def _default_rule(target: str) -> Rule:
    return Rule(
        snapshot=Snapshot(
            target=target, revision=0, epoch=0, state=State.HEALTHY, reason="built-in defaults"
        ),
        stale=True,
    )
