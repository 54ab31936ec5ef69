"""One round trip on the command connection: commands, and who takes each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from redis.exceptions import ResponseError

from worker.link.redis_wire import Answer, Command

_log = structlog.get_logger("worker.link")

Taker = Callable[[Answer], None]

_MAX_REFUSALS = 100


@dataclass(slots=True)
class Round:
    """Commands in order; an answer without a taker is only looked at for a refusal."""

    commands: list[Command] = field(default_factory=list[Command])
    takers: list[Taker | None] = field(default_factory=list[Taker | None])

    def add(self, *command: str | bytes | int, to: Taker | None = None) -> None:
        self.commands.append(command)
        self.takers.append(to)

    def extend(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self.add(*command)


class Refusals:
    """Redis answers but will not do it (rights, memory, a key of another type): said once for each reason."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def hand_out(self, round_: Round, answers: Sequence[Answer]) -> int:
        """Give each answer to its taker; the number of refusals."""
        refused = 0
        for command, taker, answer in zip(round_.commands, round_.takers, answers, strict=True):
            if isinstance(answer, ResponseError):
                refused += 1
                self.note(str(command[0]), answer)
            elif taker is not None:
                taker(answer)
        return refused

    def note(self, command: str, error: ResponseError) -> None:
        word = f"{command} {type(error).__name__}"
        if word not in self._said and len(self._said) < _MAX_REFUSALS:
            self._said.add(word)
            _log.error(
                "redis refused a command",
                action="link.redis.refused",
                command=command,
                error=type(error).__name__,
            )
