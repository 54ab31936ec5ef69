"""Which targets of a role a session may use right now, and in which order.

Rules of this module:
1. A share is sticky: a session is in it when hash(session, target) is below it, so it neither flickers
   between turns nor leaves when the share grows.
2. Whole targets come in the leader's rank order. A session inside a partial share (ramping, degraded) uses
   that target in the user's own order, or nobody would ever learn whether it works; a session outside a
   *degraded* target's share has it as its last resort, since it mostly works.
3. Nothing is sent before a hold-off is over, or while the container's own breaker is open.
4. Panic: if nothing of the role is admitted, all are, but for those whose key is condemned, in order of
   evidence. If the keys of all are condemned the route is empty: the session's recovery speaks at once.
5. Stale (never read, or its time to live is over): built-in defaults, the user's own order.

Pure: CLOCK_MONOTONIC seconds and Redis milliseconds come in as arguments. What holds for every session is
worked out once per `Plan`; a route without partial shares, hold-offs or open breakers is one attribute read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from supervisor.wire.messages import Snapshot
from supervisor.wire.vocabulary import OverrideState, State


class RuleLike(Protocol):
    """What holds for one target in this process (`worker.link.api.Rule`)."""

    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def hold_off_until_mono(self) -> float: ...
    @property
    def local_open_until_mono(self) -> float: ...
    @property
    def stale(self) -> bool: ...


class HeldLike(Protocol):
    """A target this process holds (`worker.link.api.TargetSpec`)."""

    @property
    def id(self) -> str: ...
    @property
    def order(self) -> int: ...
    @property
    def key_fp(self) -> str: ...


class Route(NamedTuple):
    """targets: ids in the order to try them. panic: nothing was admitted, so these are all that may still be
    tried, least suspect first. shut: nothing may be tried, every key is condemned.
    """

    targets: tuple[str, ...]
    panic: bool = False

    @property
    def shut(self) -> bool:
        return not self.targets


# How much speaks against a target when nothing of its role is admitted; the least bad is tried first.
_SEVERITY: Final = {
    State.HEALTHY: 0,
    State.DEGRADED: 1,
    State.RAMPING: 2,
    State.LIMITED: 3,
    State.PROBING: 4,
    State.UNHEALTHY: 5,
}


@lru_cache(maxsize=16_384)
def sticky(session: str, target: str) -> float:
    """Where the session stands in the target's share: 0 ≤ x < 1, the same in every process and release."""
    digest = hashlib.blake2b(f"{session}\0{target}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def condemned(snapshot: Snapshot, key_fp: str) -> bool:
    """Whether the leader has condemned the key that this process holds for the target."""
    return key_fp in snapshot.condemned_keys


def in_share(snapshot: Snapshot, place: float, started_at_ms: int) -> bool:
    """Whether a session at `place` (see `sticky`) that began at `started_at_ms` (Redis TIME) is in it."""
    if snapshot.admit <= 0.0:
        return False
    if snapshot.new_sessions_only and started_at_ms < snapshot.since_at_ms:
        return False
    return place < snapshot.admit


def admitted(rule: RuleLike, key_fp: str, place: float, started_at_ms: int, now_mono: float) -> bool:
    """Whether one target may be used now: rules 1, 3 and 5, and no condemned key; panic is for the route."""
    if now_mono < rule.local_open_until_mono:
        return False
    if rule.stale:
        return True
    snapshot = rule.snapshot
    if now_mono < rule.hold_off_until_mono or condemned(snapshot, key_fp):
        return False
    return in_share(snapshot, place, started_at_ms)


class _Entry(NamedTuple):
    held: HeldLike
    rule: RuleLike | None
    shut_key: bool  # its key is condemned: not even panic uses it

    def whole_rank(self) -> tuple[int, int]:
        rule = self.rule
        rank = self.held.order if rule is None or rule.stale else rule.snapshot.rank
        return rank, self.held.order

    def partial(self) -> bool:
        rule = self.rule
        if rule is None or rule.stale:
            return False
        return rule.snapshot.admit < 1.0 or rule.snapshot.new_sessions_only

    def evidence(self, now_mono: float) -> tuple[bool, bool, int, bool, int, int]:
        """Sort key for panic: the less speaks against it, the earlier."""
        rule = self.rule
        if rule is None:
            return (False, False, 0, False, *self.whole_rank())
        forced = not rule.stale and rule.snapshot.override is OverrideState.FORCED_UNHEALTHY
        severity = 0 if rule.stale else _SEVERITY[rule.snapshot.state]
        held_off = not rule.stale and now_mono < rule.hold_off_until_mono
        return (forced, held_off, severity, now_mono < rule.local_open_until_mono, *self.whole_rank())


class Plan:
    """The targets of one role in one process under one set of rules. Make a new one when the rules change.

    rules: by target id; a held target without one is treated as stale.
    """

    __slots__ = ("_entries", "_plain", "_plain_from_mono")

    def __init__(self, rules: Mapping[str, RuleLike], held: Sequence[HeldLike]) -> None:
        self._entries: list[_Entry] = []
        plain = True
        plain_from = 0.0
        for spec in held:
            rule = rules.get(spec.id)
            shut = rule is not None and not rule.stale and condemned(rule.snapshot, spec.key_fp)
            entry = _Entry(spec, rule, shut)
            self._entries.append(entry)
            plain = plain and not shut and not entry.partial()
            if rule is not None:
                plain_from = max(plain_from, rule.local_open_until_mono)
                if not rule.stale:
                    plain_from = max(plain_from, rule.hold_off_until_mono)
        self._entries.sort(key=_Entry.whole_rank)
        self._plain_from_mono = plain_from
        self._plain = Route(tuple(entry.held.id for entry in self._entries)) if plain else None

    def route(self, session: str, started_at_ms: int, now_mono: float) -> Route:
        """The order of targets for a session that began at `started_at_ms` (Redis TIME). Never raises."""
        plain = self._plain
        if plain is not None and now_mono >= self._plain_from_mono:
            return plain
        return self._work_out(session, started_at_ms, now_mono)

    @property
    def plain(self) -> tuple[Route | None, float]:
        """The route of every session (None when they differ), and from when (CLOCK_MONOTONIC) it holds."""
        return self._plain, self._plain_from_mono

    def _work_out(self, session: str, started_at_ms: int, now_mono: float) -> Route:
        chosen: list[tuple[tuple[int, int], str]] = []
        spare: list[tuple[tuple[int, int], str]] = []
        for entry in self._entries:
            target, rule = entry.held.id, entry.rule
            if entry.shut_key:
                continue
            if rule is None:
                chosen.append((entry.whole_rank(), target))
            elif admitted(rule, entry.held.key_fp, sticky(session, target), started_at_ms, now_mono):
                order = entry.held.order
                chosen.append(((order, order) if entry.partial() else entry.whole_rank(), target))
            elif _last_resort(rule, now_mono):
                spare.append((entry.whole_rank(), target))
        if not chosen and not spare:
            return self._panic(now_mono)
        chosen.sort()
        spare.sort()
        return Route(tuple(target for _, target in (*chosen, *spare)))

    def _panic(self, now_mono: float) -> Route:
        open_to_all = [entry for entry in self._entries if not entry.shut_key]
        open_to_all.sort(key=lambda entry: entry.evidence(now_mono))
        return Route(tuple(entry.held.id for entry in open_to_all), panic=True)


def _last_resort(rule: RuleLike, now_mono: float) -> bool:
    snapshot = rule.snapshot
    return (
        snapshot.state is State.DEGRADED
        and snapshot.admit > 0.0
        and now_mono >= rule.local_open_until_mono
        and now_mono >= rule.hold_off_until_mono
    )


class Router:
    """`Plan` for rules that change: makes a new one whenever it is handed another mapping of rules."""

    __slots__ = ("_held", "_plain", "_plain_from_mono", "_plan", "_rules")

    def __init__(self, held: Sequence[HeldLike]) -> None:
        self._held = tuple(held)
        self._rules: Mapping[str, RuleLike] = {}
        self._plan = Plan(self._rules, self._held)
        self._plain, self._plain_from_mono = self._plan.plain

    def route(
        self, rules: Mapping[str, RuleLike], session: str, started_at_ms: int, now_mono: float
    ) -> Route:
        """The route under `rules`, which must not be changed in place (compared by identity)."""
        if rules is not self._rules:
            self._plan = Plan(rules, self._held)
            self._rules = rules
            self._plain, self._plain_from_mono = self._plan.plain
        # `Plan.route` once more: this is on every call's path.
        if self._plain is not None and now_mono >= self._plain_from_mono:
            return self._plain
        return self._plan.route(session, started_at_ms, now_mono)
