"""One line of JSON a turn: what a drill session asked for and what it got. Read by `supervisor drill`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A finished turn.

    at_ms: wall time at which the user's words were handed over. first_s: seconds to the first word of the
    answer (None: nothing came). total_s: seconds until the session was ready for the next turn.
    expected / got: words of the full answer, and how many of them came, in order. twice: words that came again.
    apologised: something was said that is not the answer. closed: the session ended itself in this turn.
    """

    worker: str
    session: str
    turn: int
    at_ms: int
    first_s: float | None
    total_s: float
    expected: int
    got: int
    twice: int
    apologised: bool
    closed: bool

    @property
    def silent(self) -> bool:
        return self.first_s is None

    @property
    def cut(self) -> bool:
        """Some of the answer came, and then no more of it, and nothing else was said."""
        return 0 < self.got < self.expected


class RecordFile:
    """Appends records; each line is one write, so several processes may share a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, record: TurnRecord) -> None:
        os.write(self._fd, (json.dumps(asdict(record)) + "\n").encode())

    def close(self) -> None:
        os.close(self._fd)


def compare(expected: Sequence[str], heard: Sequence[str]) -> tuple[int, int, bool]:
    """(words of `expected` that came in order, words that came more than once, whether anything else was said).

    Case and punctuation do not count. The words of an answer are all different (worker.simulator.answers), so
    a word that comes again was said twice.
    """
    want = [_bare(w) for w in expected]
    index = {w: i for i, w in enumerate(want)}
    reached, twice, other = 0, 0, False
    seen: set[str] = set()
    for word in map(_bare, heard):
        position = index.get(word)
        if position is None:
            other = other or bool(word)
        elif word in seen:
            twice += 1
        else:
            seen.add(word)
            reached += position == reached
    return reached, twice, other


def _bare(word: str) -> str:
    return word.strip(".,!?;:\"'").lower()
