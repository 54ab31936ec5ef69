"""A link that only notes what guarded calls tell it. Its rules are set by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from supervisor.wire.messages import FaultEvent, SessionInfo, Snapshot
from supervisor.wire.vocabulary import FaultKind, Role, State
from worker.link.api import ProbeHandler, Rule, Rules, RulesListener, TargetSpec, Use


@dataclass
class Outcome:
    """One attempt as the link saw it; `end` is "" while it lives."""

    target: str
    deadline_ms: int
    first_output_ms: int | None = None
    end: str = ""
    kind: FaultKind | None = None
    event: FaultEvent | None = None
    use: Use = field(default_factory=Use)


class NotedLink:
    """See `worker.link.api.Link`."""

    def __init__(self) -> None:
        self._rules = Rules()
        self._listeners: list[RulesListener] = []
        self.attempts: list[Outcome] = []
        self.held: list[TargetSpec] = []
        self.double_ends = 0

    @property
    def rules(self) -> Rules:
        return self._rules

    @property
    def worker(self) -> str:
        return "worker-under-test"

    def hold(self, specs: list[TargetSpec]) -> None:
        self.held += specs

    def started(self, target: str, deadline_ms: int) -> int:
        self.attempts.append(Outcome(target, deadline_ms))
        return len(self.attempts) - 1

    def first_output(self, attempt: int, waited_ms: int) -> None:
        self.attempts[attempt].first_output_ms = waited_ms

    def succeeded(self, attempt: int, use: Use | None = None) -> None:
        self._end(attempt, "ok").use = use or Use()

    def failed(
        self, attempt: int, kind: FaultKind, event: FaultEvent | None = None, retry_after_ms: int = 0
    ) -> None:
        del retry_after_ms
        outcome = self._end(attempt, "fault")
        outcome.kind = kind
        outcome.event = event

    def abandoned(self, attempt: int) -> None:
        self._end(attempt, "abandoned")

    def session(self, info: SessionInfo) -> None:
        del info

    def on_rules(self, listener: RulesListener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        del role, handler
        return lambda: None

    def rule(self, target: str, **fields: object) -> None:
        """Say something about one target, as the leader would."""
        known = self._rules.by_target.get(target)
        values: dict[str, object] = {"state": State.HEALTHY}
        if known is not None:
            values = {name: getattr(known.snapshot, name) for name in known.snapshot.__struct_fields__}
        values |= {"target": target, "revision": self._rules.revision + 1, "epoch": 1, **fields}
        snapshot = Snapshot(**values)  # pyright: ignore[reportArgumentType] - fields by name, checked by the test
        by_target = {**self._rules.by_target, target: Rule(snapshot)}
        self._rules = Rules(revision=self._rules.revision + 1, epoch=1, by_target=by_target)
        for listener in list(self._listeners):
            listener(self._rules)

    def deadlines(self, *targets: str, first_output_ms: int, stall_ms: int) -> None:
        """Short deadlines, so that a test need not wait."""
        for target in targets:
            self.rule(target, first_output_ms=first_output_ms, stall_ms=stall_ms)

    def ends(self) -> list[tuple[str, str]]:
        """Target and end (the kind, when it is a fault) of every attempt, in the order they began."""
        return [(a.target, a.kind.value if a.kind is not None else a.end) for a in self.attempts]

    def _end(self, attempt: int, how: str) -> Outcome:
        outcome = self.attempts[attempt]
        if outcome.end:
            self.double_ends += 1
        outcome.end = how
        return outcome
