"""What a session went through: counts as users knew them, silences, and the report at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from supervisor.wire.messages import SessionInfo
from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.counters import ErrorCounters

SHOWN: Final = (Role.LLM, Role.TTS, Role.STT)
ByKind = Mapping[Role, Counter[FaultKind]]


def plain(by_kind: ByKind) -> dict[str, dict[str, int]]:
    """With plain names."""
    return {role.value: {kind.value: n for kind, n in kinds.items()} for role, kinds in by_kind.items()}


def less(faults: ByKind, noticed: ByKind) -> dict[str, dict[str, int]]:
    """Faults of attempts, but for those that became errors of the session."""
    rest = {role: kinds - noticed.get(role, Counter()) for role, kinds in faults.items()}
    return plain({role: kinds for role, kinds in rest.items() if kinds})


def all_faults(attempts: ByKind, errors: ByKind) -> dict[str, dict[str, int]]:
    """Every fault by role and kind, those among them that are of no attempt: empty answers, realtime models."""
    faults = plain(attempts)
    for role, kinds in errors.items():
        mine = faults.setdefault(role.value, {})
        for kind, number in kinds.items():
            mine[kind.value] = max(mine.get(kind.value, 0), number)
    return faults


class ErrorStats(dict[str, int]):
    """Errors that reached the session, by role: `{'llm': 2, 'tts': 0, 'stt': 1}`, which may be added up.

    More is found under other keys, which are not among `keys()`: `by_kind` (role → kind → number), `handled` (faults of
    attempts that became none of those errors, by role and kind), `in_a_row`, `failovers`, `apologies`, `turns`,
    `longest_silence_s`, `outcome`, `total`.
    """

    def __init__(self, counts: Mapping[str, int], details: Mapping[str, Any]) -> None:
        super().__init__(counts)
        self.details = dict(details)

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key) if key in self else self.details[key]


@dataclass(frozen=True, slots=True)
class SessionReport:
    """The report at a session's end. Times in seconds but `*_at_ms` (wall).

    session_errors: errors that reached the session. faults: every fault of every attempt, by role and kind.
    outcome: `ok` (no apology was needed), `recovered` (we apologised and went on), `gave_up` (a final message),
    `transferred`, `failed` (livekit closed the session with an error).
    """

    session: str
    started_at_ms: int
    ended_at_ms: int
    turns: int
    session_errors: dict[str, int]
    faults: dict[str, dict[str, int]]
    failovers: int
    apologies: int
    final_messages: int
    longest_silence_s: float
    outcome: str
    targets: dict[str, str] = field(default_factory=dict[str, str])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def info(self, worker: str) -> SessionInfo:
        """As the contract has it."""
        return SessionInfo(
            session=self.session[:128],
            worker=worker or "-",
            started_at_ms=self.started_at_ms,
            ended_at_ms=self.ended_at_ms,
            turns=self.turns,
            errors={
                role: {FaultKind(kind): number for kind, number in kinds.items()}
                for role, kinds in self.faults.items()
            },
            failovers=self.failovers,
            apologies=self.apologies,
            longest_silence_ms=int(self.longest_silence_s * 1000),
            outcome=self.outcome,
            targets=self.targets,
        )


def error_stats(counters: ErrorCounters, attempts: ByKind, report: SessionReport) -> ErrorStats:
    """What `get_error_stats()` gives. attempts: faults of attempts, by role and kind."""
    return ErrorStats(
        report.session_errors,
        {
            Role.REALTIME.value: counters.total[Role.REALTIME],
            "by_kind": plain(counters.by_kind),
            "in_a_row": {role.value: counters.in_a_row(role) for role in SHOWN},
            "handled": less(attempts, counters.by_kind),
            "failovers": report.failovers,
            "apologies": report.apologies,
            "turns": report.turns,
            "longest_silence_s": report.longest_silence_s,
            "outcome": report.outcome,
            "total": sum(counters.total.values()),
        },
    )


class SilenceMeter:
    """The longest time a caller waited for a sound after a turn. Pure: monotonic seconds come in."""

    def __init__(self) -> None:
        self._since_mono: float | None = None
        self.longest_s = 0.0

    @property
    def waiting_since(self) -> float | None:
        """Since when the caller waits; None when they do not."""
        return self._since_mono

    def turn_ended(self, at_mono: float) -> None:
        """The caller has finished a turn (an earlier one that got no answer is over with it)."""
        self.heard(at_mono)
        self._since_mono = at_mono

    def heard(self, at_mono: float) -> None:
        """The agent makes a sound, the caller speaks on, or the call ends."""
        if self._since_mono is not None:
            self.longest_s = max(self.longest_s, at_mono - self._since_mono)
        self._since_mono = None
