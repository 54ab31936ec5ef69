"""The session's own error counters: in a row, per role and per kind. Pure; the session's are reset by an apology.

A failing turn counts once, however many errors it brings (a recogniser that reconnects may bring two a second).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.wire.vocabulary import FaultKind, Role

Limits = int | Mapping[str, int]

DEFAULT_MAX_RETRIES = 3
_ROLES = frozenset(role.value for role in Role)
_KINDS = frozenset(kind.value for kind in FaultKind)


def is_role_or_kind(name: object) -> bool:
    """Whether it is the name of a role, of a kind of fault, or `role.kind`."""
    first, *rest = name.split(".", 1) if isinstance(name, str) else ("",)
    return first in _ROLES and rest[0] in _KINDS if rest else first in _ROLES | _KINDS


@dataclass(frozen=True, slots=True)
class Count:
    """Errors in a row, and how many are allowed before giving up. `new`: this error was a new one."""

    count: int
    limit: int
    new: bool = True

    @property
    def exhausted(self) -> bool:
        """One more than the limit."""
        return self.count > self.limit


class ErrorCounters:
    """max_retries: one number for all, or numbers by role, kind, or `role.kind`, e.g. `{"llm": 5, "rate_limit": 10}`.

    A kind with a number of its own counts against that alone; all others count against their role's. Raises
    ValueError for anything but whole numbers from 0 up, and for a name that is neither role nor kind.
    """

    def __init__(self, max_retries: Limits = DEFAULT_MAX_RETRIES) -> None:
        self._limits: dict[str, int] = {}
        self._default = DEFAULT_MAX_RETRIES
        self.set_limits(max_retries)
        self._row: Counter[Role | tuple[Role, FaultKind]] = Counter()
        self._last_turn: dict[Role, int] = {}
        self.total: Counter[Role] = Counter()
        self.by_kind: dict[Role, Counter[FaultKind]] = {}

    def set_limits(self, max_retries: Limits) -> None:
        """Replace the limits; counts stay."""
        if isinstance(max_retries, int):
            self._default, self._limits = _checked("max_retries", max_retries), {}
            return
        if not isinstance(max_retries, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may hand in anything
            raise ValueError("max_retries: must be a whole number, or such numbers by role and kind")  # noqa: TRY004  # one exception for all wrong limits
        for name in max_retries:
            if not is_role_or_kind(name):
                raise ValueError(f"max_retries: {name!r} is neither a role nor a kind of fault")
        self._limits = {name: _checked(name, number) for name, number in max_retries.items()}

    def limit(self, role: Role, kind: FaultKind | None = None) -> int:
        """Errors in a row that are recovered from before the final message."""
        own = self._own(role, kind) if kind is not None else None
        return own if own is not None else self._limits.get(role.value, self._default)

    def note(self, role: Role, kind: FaultKind) -> Count:
        """An error that no service is blamed for: in the totals, not in the row."""
        self.total[role] += 1
        self.by_kind.setdefault(role, Counter())[kind] += 1
        return Count(0, self.limit(role, kind))

    def error(self, role: Role, kind: FaultKind, turn: int) -> Count:
        """One more error of this role in this turn of the caller's."""
        self.note(role, kind)
        key = self._key(role, kind)
        new = self._last_turn.get(role) != turn
        self._last_turn[role] = turn
        if new:
            self._row[key] += 1
        return Count(max(self._row[key], 1), self.limit(role, kind), new)

    def success(self, role: Role) -> bool:
        """It works: its counts start again. Whether there was anything to reset."""
        self._last_turn.pop(role, None)
        had = [key for key in self._row if key == role or (isinstance(key, tuple) and key[0] is role)]
        for key in had:
            del self._row[key]
        return bool(had)

    def in_a_row(self, role: Role) -> int:
        """The role's errors since its last success, of all kinds."""
        return sum(
            n for key, n in self._row.items() if key == role or (isinstance(key, tuple) and key[0] is role)
        )

    def _own(self, role: Role, kind: FaultKind) -> int | None:
        return self._limits.get(f"{role.value}.{kind.value}", self._limits.get(kind.value))

    def _key(self, role: Role, kind: FaultKind) -> Role | tuple[Role, FaultKind]:
        return role if self._own(role, kind) is None else (role, kind)


def _checked(name: str, number: int) -> int:
    whole = isinstance(number, int) and not isinstance(number, bool)  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may hand in anything
    if not whole or number < 0:
        raise ValueError(f"{name}: must be 0 or more, a whole number")
    return number
