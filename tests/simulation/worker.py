"""A modelled container: sessions that make turns as `worker.guard.llm_race` does, over the real local rules.

Route, next step after a fault, budget of hedges, breakers and counters are the real ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from supervisor.core.admission import Route, Router
from supervisor.core.decide import GiveUp, Option, Retry, Situation, decide
from supervisor.core.effects import SendProbe
from supervisor.wire.messages import ProbeResult, Report
from supervisor.wire.vocabulary import FaultKind
from tests.simulation.link import ModelLink
from tests.simulation.world import BEGIN_MS, Clock, Fate, Provider
from worker.guard.routing import ALONE, DEFAULT_LATENCY_BUDGET_MS, LATE_FOR_S
from worker.guard.timing import HedgeBudget
from worker.link.api import TargetSpec, Use

TURN_MS = 4_000.0
_ALONE_MS = ALONE * DEFAULT_LATENCY_BUDGET_MS
_USE = Use()


class Attempt:
    """One request of one turn. Every callback that comes after its end does nothing."""

    __slots__ = ("at", "ended", "heard", "hedge_ms", "key", "target", "turn")

    def __init__(self, key: int, target: str, turn: Turn, at: float, hedge_ms: int) -> None:
        self.key = key
        self.target = target
        self.turn = turn
        self.at = at
        self.hedge_ms = hedge_ms
        self.heard = False
        self.ended = False


class Tried:
    """What a turn knows of one target."""

    __slots__ = ("attempts", "last", "retry_after_ms")

    def __init__(self) -> None:
        self.attempts = 0
        self.last: FaultKind | None = None
        self.retry_after_ms = 0


class Turn:
    """One answer to be given, until its first output."""

    __slots__ = ("attempts", "begun", "hedged", "running", "session", "tried")

    def __init__(self, session: str, begun: float) -> None:
        self.session = session
        self.begun = begun
        self.running: list[Attempt] = []  # without output yet
        self.tried: dict[str, Tried] = {}
        self.attempts = 0
        self.hedged = False


class Worker:
    """See the module. broken: targets whose requests fail here and only here."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        providers: dict[str, Provider],
        sessions: int,
        rng: random.Random,
        send: Callable[[Report | ProbeResult], None],
    ) -> None:
        self.name, self.clock, self.providers, self.rng = name, clock, providers, rng
        self.sessions = [f"{name}-s{i}" for i in range(sessions)]
        self.hedges = {session: HedgeBudget() for session in self.sessions}  # a process a call
        self.link = ModelLink(name, clock, list(providers), sessions, rng, send, self._probe)
        self.link.core.listen(lambda _: self.clock.after(0.0, self._check))
        self.router = Router([TargetSpec(target, order, "k1") for order, target in enumerate(providers)])
        self.late: dict[tuple[str, str], float] = {}  # when a target last kept a session waiting in vain
        self.broken: set[str] = set()
        self.waiting: dict[int, Attempt] = {}
        self.n = 0
        self.waits: list[float] = []
        self.silent = 0
        for session in self.sessions:
            clock.after(rng.random() * TURN_MS, self.turn, session)

    # --- turns

    def turn(self, session: str) -> None:
        self.clock.after(TURN_MS * (0.9 + 0.2 * self.rng.random()), self.turn, session)
        self._go(Turn(session, self.clock.now))

    def _route(self, session: str) -> Route:
        rules = self.link.core.rules
        started_at_ms = int(BEGIN_MS + self.link.skew_ms) + rules.clock_offset_ms
        return self.router.route(rules.by_target, session, started_at_ms, self.link.mono())

    def _untried(self, turn: Turn) -> str | None:
        return next((t for t in self._route(turn.session).targets if t not in turn.tried), None)

    def _go(self, turn: Turn) -> None:
        """Nothing of it is under way: the next step, as the guard decides it."""
        route = self._route(turn.session)
        left = int(DEFAULT_LATENCY_BUDGET_MS - (self.clock.now - turn.begun))
        options = [self._option(turn, target, panic=route.panic) for target in route.targets]
        step = decide(Situation(options, left, self.rng.random(), turn.attempts))
        if isinstance(step, GiveUp):
            self.silent += 1
        elif isinstance(step, Retry) and step.sleep_ms:
            self.clock.after(step.sleep_ms, self._ask, turn, step.target)
        else:
            self._ask(turn, step.target)

    def _option(self, turn: Turn, target: str, *, panic: bool) -> Option:
        rule = self.link.core.rules.by_target[target]
        tried, s = turn.tried.get(target) or Tried(), rule.snapshot
        return Option(
            target,
            attempts=tried.attempts,
            last=tried.last,
            retry_after_ms=tried.retry_after_ms,
            max_attempts=s.max_attempts,
            retry_allowed=rule.retry_allowed,
            panic=panic or s.panic,
            backoff_base_ms=s.backoff_base_ms,
            backoff_cap_ms=s.backoff_cap_ms,
            backoff_jitter=s.backoff_jitter,
        )

    def _ask(self, turn: Turn, target: str, *, hedge: bool = False) -> None:
        clock = self.clock
        if not hedge:
            self.hedges[turn.session].attempt()
        self.n += 1
        snapshot = self.link.core.rules.by_target[target].snapshot
        attempt = Attempt(self.n, target, turn, clock.now, snapshot.hedge_ms)
        turn.attempts += 1
        turn.tried.setdefault(target, Tried()).attempts += 1
        turn.running.append(attempt)
        self.waiting[attempt.key] = attempt
        self.link.started(attempt.key, target)
        fate = self._fate(target)
        if fate.first_ms is not None:
            clock.after(fate.first_ms, self._first, attempt)
        if fate.end_ms is not None:
            clock.after(fate.end_ms, self._end, attempt, fate.fault, fate.retry_after_ms)
        clock.after(snapshot.first_output_ms, self._deadline, attempt)
        if not turn.hedged and snapshot.hedge_ms and not snapshot.panic:
            clock.after(snapshot.hedge_ms, self._hedge, attempt)

    def _hedge(self, attempt: Attempt) -> None:
        turn = attempt.turn
        if attempt.ended or attempt.heard or turn.hedged:
            return
        target = self._untried(turn)
        now, left_ms = self.link.mono(), turn.begun + _ALONE_MS - self.clock.now
        late = now - self.late.get((turn.session, attempt.target), float("-inf")) < LATE_FOR_S
        if target is None or late or left_ms <= 0 or self.hedges[turn.session].take(now):
            turn.hedged = True
            if target is not None:
                self._ask(turn, target, hedge=True)
        else:
            self.clock.after(left_ms, self._hedge, attempt)

    def _fate(self, target: str, *, short: bool = False) -> Fate:
        if target in self.broken:
            return Fate(None, 20.0, FaultKind.CONNECT)  # it never reaches the provider
        return self.providers[target].request(self.clock.now, short=short)

    # --- what becomes of an attempt

    def _first(self, attempt: Attempt) -> None:
        if attempt.ended:
            return
        attempt.heard = True
        turn = attempt.turn
        self.late.pop((turn.session, attempt.target), None)
        self._no_longer_waits(attempt)
        self.link.core.first_output(attempt.key, int(self.clock.now - attempt.at))
        self.waits.append(self.clock.now - turn.begun)
        for loser in list(turn.running):
            self._drop(loser)

    def _deadline(self, attempt: Attempt) -> None:
        if not attempt.ended and not attempt.heard:
            self._failed(attempt, FaultKind.FIRST_OUTPUT_TIMEOUT, 0)

    def _end(self, attempt: Attempt, fault: FaultKind | None, retry_after_ms: int) -> None:
        if attempt.ended:
            return
        if fault is None:
            attempt.ended = True
            self.link.core.succeeded(attempt.key, _USE)
        else:
            self._failed(attempt, fault, retry_after_ms)

    def _failed(self, attempt: Attempt, fault: FaultKind, retry_after_ms: int) -> None:
        attempt.ended = True
        self._no_longer_waits(attempt)
        self.link.core.failed(attempt.key, fault, retry_after_ms)
        turn = attempt.turn
        tried = turn.tried[attempt.target]
        tried.last, tried.retry_after_ms = fault, retry_after_ms
        if not attempt.heard and not turn.running:
            self._go(turn)

    def _drop(self, attempt: Attempt) -> None:
        attempt.ended = True
        self._no_longer_waits(attempt)
        self.link.core.abandoned(attempt.key)

    def _no_longer_waits(self, attempt: Attempt) -> None:
        if not attempt.heard and attempt.hedge_ms and self.clock.now - attempt.at >= attempt.hedge_ms:
            self.late[attempt.turn.session, attempt.target] = self.link.mono()
        if self.waiting.pop(attempt.key, None) is not None:
            attempt.turn.running.remove(attempt)

    def _check(self) -> None:
        """New rules: what waits for a target that is admitted no more moves on, if it has where to go."""
        for attempt in list(self.waiting.values()):
            turn = attempt.turn
            if attempt.ended or attempt.heard or attempt.target in self._route(turn.session).targets:
                continue
            if self._untried(turn) is not None:
                self._drop(attempt)
                if not turn.running:
                    self._go(turn)

    # --- probes

    def _probe(self, order: SendProbe) -> None:
        fate = self._fate(order.target, short=True)
        slow = fate.end_ms is None or fate.end_ms > order.budget_ms
        wait = order.budget_ms if slow else fate.end_ms or 0.0
        result = ProbeResult(
            self.name,
            order.id,
            order.target,
            FaultKind.FIRST_OUTPUT_TIMEOUT if slow else fate.fault,
            int(fate.first_ms or 0),
            int(wait),
            retry_after_ms=fate.retry_after_ms,
        )
        self.clock.after(wait, self.link.result, result)
