"""Real sessions against stand-ins: text ones that are asked, audio ones with a caller on the line."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

from livekit.agents import Agent, AgentSession, APIError
from livekit.agents.voice import io

from tests.support.waiting import wait_until
from worker.recovery import ErrorRecoveryManager, setup_error_handling
from worker.simulator.callers import Caller, Manners, Turn


class Sink(io.TextOutput):
    """What a text session shows its user: one entry for each thing said."""

    def __init__(self) -> None:
        super().__init__(label="sink", next_in_chain=None)
        self.said: list[str] = []
        self._open = ""

    async def capture_text(self, text: str) -> None:
        self._open += text

    def flush(self) -> None:
        if self._open:
            self.said.append(self._open)
        self._open = ""


@dataclass
class TextCall:
    """A started text session."""

    session: AgentSession[Any]
    manager: ErrorRecoveryManager
    sink: Sink = field(default_factory=Sink)
    closed: list[Any] = field(default_factory=list[Any])

    @property
    def said(self) -> list[str]:
        """Everything said so far."""
        return self.sink.said

    async def ask(self, text: str, *, answers: int = 1) -> str:
        """One turn; what was said at its end. Waits until so many new things were said."""
        before = len(self.said)
        with contextlib.suppress(APIError):  # `run` raises what the turn met; the caller only sees the text
            await self.session.run(user_input=text)
        if answers:
            await wait_until(lambda: len(self.said) >= before + answers, "something was said")
        return self.said[-1] if len(self.said) > before else ""


@contextlib.asynccontextmanager
async def text_call(
    model: Any,
    *,
    agent: Agent | None = None,
    start_first: bool = False,
    session: AgentSession[Any] | None = None,
    **given: Any,
) -> AsyncGenerator[TextCall]:
    """A text session with error handling; `start_first` sets that up after the start."""
    session = session or AgentSession(llm=model, vad=None)
    sink = Sink()
    session.output.transcription = sink
    starting = agent or Agent(instructions="Answer.")
    if start_first:
        await cast("Any", session).start(starting)
    manager = setup_error_handling(session, own_voice=False, **given)
    call = TextCall(session, manager, sink)
    cast("Any", session).on("close", call.closed.append)
    if not start_first:
        await cast("Any", session).start(starting)
    try:
        yield call
    finally:
        await session.aclose()
        await manager.aclose()


@dataclass
class AudioCall:
    """A started audio session, and the person it talks to."""

    session: AgentSession[Any]
    manager: ErrorRecoveryManager
    caller: Caller
    closed: list[Any] = field(default_factory=list[Any])

    async def turn(self) -> Turn:
        """The caller speaks once and listens to what comes."""
        before = len(self.caller.turns)
        await self.caller.run(turns=before + 1)
        assert len(self.caller.turns) > before, "the call had ended"
        return self.caller.turns[-1]


@contextlib.asynccontextmanager
async def audio_call(
    *, stt: Any, llm: Any, tts: Any, agent: Agent | None = None, patience_s: float = 6.0, **given: Any
) -> AsyncGenerator[AudioCall]:
    """An audio session with error handling and a caller who waits `patience_s` for an answer."""
    session: AgentSession[Any] = AgentSession(
        stt=stt, llm=llm, tts=tts, turn_handling={"turn_detection": "vad"}, aec_warmup_duration=None
    )
    caller = Caller("ada", manners=Manners(patience_s=patience_s, pause_s=0.2, listen_first_s=0.1))
    caller.attach(session)
    manager = setup_error_handling(session, **given)
    call = AudioCall(session, manager, caller)
    cast("Any", session).on("close", call.closed.append)
    await cast("Any", session).start(agent or Agent(instructions="Answer."))
    try:
        yield call
    finally:
        await session.aclose()
        await caller.aclose()
        await manager.aclose()
