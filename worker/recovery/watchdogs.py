"""The watchdog over a caller's silence: an agent that nobody will answer for, or that is stuck in `thinking`.

The deaf watchdog (speech without words), empty answers and voices without sound are noticed from events, in
`watch`; this one notices that nothing happens. A running tool, a hand-off or a caller who speaks is no silence, and
what comes after one has its full time: see `work`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog
from livekit.agents import AgentSession, llm

from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.guard_session import SessionGuard
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import RecoveryOptions
from worker.recovery.speaker import Speaker
from worker.recovery.stats import SilenceMeter
from worker.recovery.work import Work

log = structlog.get_logger("worker.recovery")

_LOOK_AGAIN_S: Final = 0.1
# A target that has not answered in this time, when all others failed, will not make it in time either.
_OVERDUE_S: Final = 0.6


class Waiting(Protocol):
    """What is seen of the turn."""

    silence: SilenceMeter
    work: Work
    turn: int

    def gave_up_on(self, role: Role, kind: FaultKind) -> None: ...


class Patience:
    """`begin(turn)` when the caller's turn is over."""

    def __init__(
        self,
        waiting: Waiting,
        session: AgentSession[Any],
        guard: SessionGuard,
        link: ObservedLink,
        speaker: Speaker,
        options: RecoveryOptions,
        clock: Callable[[], float],
    ) -> None:
        self._waiting, self._session, self._guard = waiting, session, guard
        self._link, self._speaker, self._options, self._clock = link, speaker, options, clock
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, turn: int) -> None:
        """The caller waits from now on (from their last word, as the silence is measured)."""
        self.end()
        self._later(self._left_s(self._since() or self._clock()), turn)

    def end(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, turn: int) -> None:
        since = self._since()
        if since is None or turn != self._waiting.turn:
            return
        left_s = self._left_s(since)
        if (
            not left_s
            and not self._waiting.work.tool_runs
            and self._session.user_state != "speaking"
            and not self._speaker.speaking
        ):
            role = self._hopeless(since)
            if role is not None:
                noted = self._link.last_fault(role, since)
                self._stuck(role, noted.kind if noted is not None else FaultKind.FIRST_OUTPUT_TIMEOUT)
                return
            # What gave output a moment ago is at work; that it then falls silent is for its guard to notice.
            alive = max(since, self._link.output_mono.get(Role.LLM, 0.0))
            if self._options.stuck_after_s and self._clock() - alive >= self._options.stuck_after_s:
                realtime = isinstance(self._guard.component(Role.LLM), llm.RealtimeModel)
                # A realtime model that is mute may never get as far as `thinking`.
                if realtime and self._session.agent_state != "speaking":
                    self._stuck(Role.REALTIME, FaultKind.STALLED)
                elif self._session.agent_state == "thinking":
                    self._stuck(Role.LLM, FaultKind.STALLED)
                return
        self._later(max(left_s, _LOOK_AGAIN_S), turn)

    def _since(self) -> float | None:
        """From when on there might have been a sound; None when nobody waits for one."""
        waiting_since = self._waiting.silence.waiting_since
        return self._waiting.work.since(waiting_since) if waiting_since is not None else None

    def _left_s(self, since: float) -> float:
        return max(since + self._options.patience_s - self._clock(), 0.0)

    def _hopeless(self, since: float) -> Role | None:
        for role in (Role.LLM, Role.TTS):
            guard = self._guard.guard_of(role)
            if guard is None:
                continue
            targets = [child.target for child in guard.guard.route()]
            if self._link.hopeless(role, targets, since, _OVERDUE_S):
                return role
        return None

    def _stuck(self, role: Role, kind: FaultKind) -> None:
        log.info("nobody is about to answer", action="recovery.stuck", role=role.value, kind=kind.value)
        self._waiting.gave_up_on(role, kind)

    def _later(self, delay_s: float, turn: int) -> None:
        look = harmless("patience", lambda _: self._look(turn))
        self._timer = asyncio.get_running_loop().call_later(delay_s, look, None)


class DeafTimeout:
    """livekit's own watch over speech without words, for as long as we look after the session. A user's own stays."""

    def __init__(self, options: Any, after_s: float) -> None:
        self._options, self._after_s = options, after_s
        self._set = False

    def begin(self) -> None:
        """Have livekit tell."""
        if self._after_s and self._options.transcription_timeout is None:
            self._options.transcription_timeout, self._set = self._after_s, True

    def end(self) -> None:
        """As it was before."""
        if self._set and self._options.transcription_timeout == self._after_s:
            self._options.transcription_timeout = None
        self._set = False


def harmless(name: str, call: Callable[[Any], None]) -> Callable[[Any], None]:
    def handle(argument: Any) -> None:
        try:
            call(argument)
        except Exception as exc:  # noqa: BLE001  # recovery's own bug must not be the end of the call
            log.error("recovery failed", action="recovery.failed", during=name, error=type(exc).__name__)

    return handle
