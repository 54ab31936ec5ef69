"""What the watch over a session keeps and asks: pure values, and the face it tells things to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from livekit.agents.voice import SpeechHandle

from supervisor.wire.vocabulary import FaultKind, Role
from worker.guard.tts_text import has_words


class Manager(Protocol):
    """What the watch tells."""

    def error(self, role: Role, kind: FaultKind, *, counts: bool = True) -> None: ...
    def already_recoverable(self, role: Role, kind: FaultKind) -> None: ...
    def success(self, role: Role) -> None: ...
    def spoke_language(self, language: str) -> None: ...
    def looked(self) -> None: ...
    def closed(self, event: Any) -> None: ...


@dataclass(slots=True)
class Reply:
    """A reply of the agent's, spoken or being made. `heard`: it sounds, or has."""

    handle: SpeechHandle
    source: str
    created_mono: float
    heard: bool = False


@dataclass(slots=True)
class Pending:
    """An error that waits: that of a speculative reply (`handle`) until the turn is committed, else until the
    caller is silent.
    """

    role: Role
    kind: FaultKind
    handle: SpeechHandle | None = None

    @property
    def speculative(self) -> bool:
        return self.handle is not None


def says_something(items: Sequence[Any]) -> bool:
    """Whether there are words among them."""
    return any(item.type == "message" and has_words(item.text_content or "") for item in items)


def does_something(items: Sequence[Any]) -> bool:
    """Whether a reply said something or called a tool."""
    return says_something(items) or any(item.type == "function_call" for item in items)
