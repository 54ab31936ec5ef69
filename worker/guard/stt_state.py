"""What `Listening` needs around it and remembers: the stream it serves, the utterance, an outage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from livekit.agents import stt, vad
from livekit.agents.types import NotGivenOr

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.faults import Fault
from worker.guard.names import Child
from worker.guard.routing import Guard
from worker.guard.stt_ear import AnySTT

SttChild = Child[AnySTT]

LATE: Final = Fault(
    FaultKind.FIRST_OUTPUT_TIMEOUT, message="speech went unanswered", phase=Phase.FIRST_OUTPUT
)
STALLED: Final = Fault(FaultKind.STALLED, message="no more transcript came", phase=Phase.MID_STREAM)
SILENT: Final = Fault(
    FaultKind.SILENT, message="speech was noticed, no word of it came", phase=Phase.MID_STREAM
)


class Room(Protocol):
    """What listening needs of its stream and its `GuardedSTT`."""

    @property
    def guard(self) -> Guard[AnySTT]: ...
    @property
    def detector(self) -> vad.VAD | None: ...
    @property
    def language(self) -> NotGivenOr[str]: ...
    @property
    def start_time_offset(self) -> float: ...
    def emit_event(self, event: stt.SpeechEvent, context: Any) -> None: ...
    def complain(self, fault: Fault | None, *, recoverable: bool) -> None: ...
    def error_for(self, fault: Fault | None) -> Exception: ...
    def understood(self, child: SttChild) -> None: ...
    def failed(self, child: SttChild) -> None: ...


@dataclass(slots=True)
class Utterance:
    """What the session and we know of the utterance going on."""

    started: bool = False
    ended: bool = False
    words: bool = False
    last_event_mono: float = 0.0
    empties: int = 0


@dataclass(slots=True)
class Outage:
    """Nobody could listen, `times` in a row."""

    times: int = 0
    complaints: int = 0
    complained_mono: float = 0.0
    fault: Fault | None = None
