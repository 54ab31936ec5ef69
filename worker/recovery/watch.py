"""Watches one session's events and says what they mean: an error somebody waits behind, a success, a silence.

Rules: no handler here raises (livekit's `emit` lets a TypeError through, which ends a recogniser's pump); an error
is marked recoverable before anything else; nothing that our own apology causes is taken for a success or a fault;
a speculative reply that fails is nobody's business until the caller's turn is committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from livekit.agents import AgentSession, llm

from supervisor.wire.vocabulary import FaultKind, Phase, Role
from worker.guard.errors import guard_fault
from worker.guard.evidence import fault_of
from worker.guard.tts_text import has_words
from worker.recovery.guard_session import SessionGuard, listen_first
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import RecoveryOptions
from worker.recovery.speaker import Speaker
from worker.recovery.stats import SilenceMeter
from worker.recovery.turn_hook import TurnHook
from worker.recovery.watchdogs import DeafTimeout, Patience, harmless
from worker.recovery.watched import Manager, Pending, Reply, does_something, says_something
from worker.recovery.work import Work

log = structlog.get_logger("worker.recovery")

_ROLES: Final = {
    "llm_error": Role.LLM,
    "stt_error": Role.STT,
    "tts_error": Role.TTS,
    "realtime_model_error": Role.REALTIME,
}
_AFTER_SILENCE_S: Final = 0.7
_NEW_WORDS_S: Final = 1.2
_FAULT_AGE_S: Final = 10.0
# VAD takes a cough for half a second of speech.
_SPEECH_MIN_S: Final = 0.5


class SessionWatch:
    """`begin()` subscribes, `end()` lets go."""

    def __init__(
        self,
        session: AgentSession[Any],
        manager: Manager,
        guard: SessionGuard,
        link: ObservedLink,
        speaker: Speaker,
        options: RecoveryOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session, self._manager, self._guard, self._link = session, manager, guard, link
        self._speaker, self._options, self._clock = speaker, options, clock
        self.silence, self.work = SilenceMeter(), Work()
        self.turns = 0
        self.turn = 0
        self._turn_open = False
        self._replies: list[Reply] = []
        self._pending: Pending | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._deaf_timeout = DeafTimeout(session.options, options.deaf_after_s)
        self._patience = Patience(self, session, guard, link, speaker, options, clock)
        self._hook = TurnHook(self, session, speaker, options)
        self._error_mono: dict[Role, float] = {}
        self._spoke_mono = self._transcript_mono = self._speech_end_mono = self._speech_start_mono = 0.0
        self._waited_since: float | None = None
        self._speech_began_at = self._speech_s = 0.0
        self._asked_again = False
        self._handlers: list[tuple[str, Callable[[Any], None]]] = []

    # ------------------------------------------------------------------ life

    def begin(self) -> None:
        """Listen to the session, and have it tell of speech without words."""
        for event, handler in (
            ("error", self._on_error),
            ("speech_created", self._on_speech),
            ("conversation_item_added", self._on_item),
            ("function_tools_executed", self._on_tools_executed),
            ("tool_execution_updated", self._on_tool),
            ("user_input_transcribed", self._on_transcript),
            ("user_transcription_timeout", self._on_no_transcript),
            ("user_state_changed", self._on_user_state),
            ("agent_state_changed", self._on_agent_state),
            ("close", self._on_close),
        ):
            safe = harmless(event, handler)
            self._handlers.append((event, safe))
            listen_first(self._session, event, safe)
        self._deaf_timeout.begin()

    def end(self) -> None:
        """Stop listening; timers stop too."""
        for event, handler in self._handlers:
            cast("Any", self._session).off(event, handler)
        self._handlers.clear()
        self._deaf_timeout.end()
        self._patience.end()
        self._hook.end()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    # ------------------------------------------------------------------ what the manager asks

    @property
    def tts_is_dead(self) -> bool:
        """Whether the voice failed last and has not come back, or nothing of its role is admitted."""
        if self._error_mono.get(Role.TTS, 0.0) > self._spoke_mono:
            return True
        guard = self._guard.guard_of(Role.TTS)
        return guard is not None and (not guard.guard.route() or guard.guard.picture().panic)

    def voice_failed(self) -> None:
        """Words of ours did not sound: the next ones are played from a recording at once."""
        self._link.gave_up_on(Role.TTS)
        self._error_mono[Role.TTS] = self._clock()

    @property
    def waited_s(self) -> float:
        """How long the caller waits for a sound by now."""
        since = self.silence.waiting_since
        return self._clock() - since if since is not None else 0.0

    def spoke_since(self, mono: float) -> bool:
        """Whether the agent itself has spoken since then."""
        return self._spoke_mono > mono

    def apologised(self) -> None:
        """The turn has its answer, such as it is."""
        self._turn_open = False

    def gave_up_on(self, role: Role, kind: FaultKind) -> None:
        """Nobody is about to answer: what still tries is ended, and the caller told."""
        self._link.gave_up_on(role)
        self.interrupt_replies()
        if role is Role.TTS:
            self._error_mono[role] = self._clock()
        self._manager.error(role, kind)

    def interrupt_replies(self) -> None:
        """End replies that will not come, so that what is said next need not wait for them."""
        for reply in self._live():
            if reply.handle.scheduled:
                reply.handle.interrupt(force=True)

    # ------------------------------------------------------------------ errors

    def _on_error(self, event: Any) -> None:
        error = event.error
        role = _ROLES.get(getattr(error, "type", ""))
        if role is None:
            return
        recoverable = bool(error.recoverable)
        error.recoverable = True  # livekit counts after us, and closes the session at the fourth
        now = self._clock()
        kind = self._kind_of(role, error.error)
        self._error_mono[role] = now
        self._manager.looked()
        if role is Role.STT:
            # A recogniser complains when it likes; a caller is concerned only once they have spoken in vain.
            if self._session.user_state != "speaking" and self._waits_for_words():
                self._later(_AFTER_SILENCE_S, self._deaf_check, self.turn)
            if recoverable:
                self._manager.already_recoverable(role, kind)
            return
        if recoverable:
            self._manager.already_recoverable(role, kind)
            return
        live = self._live()
        if live and not self._replying():
            self._pending = Pending(role, kind, live[-1].handle)
        elif self._session.user_state == "speaking":
            self._pending = Pending(role, kind)
        else:
            self._manager.error(role, kind)

    def _kind_of(self, role: Role, exc: BaseException) -> FaultKind:
        fault = guard_fault(exc)
        if fault is not None:
            return fault.kind
        noted = self._link.last_fault(role, self._clock() - _FAULT_AGE_S)
        if noted is not None:
            return noted.kind
        return fault_of(exc, "unknown", Phase.CONNECT).kind

    # ------------------------------------------------------------------ what the agent does

    def _on_speech(self, event: Any) -> None:
        if self._speaker.saying:
            return
        reply = Reply(event.speech_handle, event.source, self._clock())
        self.work.reply_began(reply.created_mono)
        if self._pending is not None and self._pending.speculative and reply.source == "generate_reply":
            self._pending = None  # of a reply that livekit has dropped for this one
        self._replies = [*self._live(), reply]
        reply.handle.add_done_callback(lambda _: harmless("done", self._reply_done)(reply))

    def _reply_done(self, reply: Reply) -> None:
        handle = reply.handle
        if handle.interrupted or not handle.scheduled or reply.source != "generate_reply":
            return
        if any(t >= reply.created_mono for role, t in self._error_mono.items() if role is not Role.STT):
            return
        exc, items = handle.exception(), handle.chat_items
        if exc is not None:
            # No service complained, so it is the agent's own code: a node of it that raised. No provider is blamed.
            self._manager.error(self._model_role(), FaultKind.LOCAL)
        elif self._realtime():
            return
        elif not does_something(items):
            if self._options.apologise_when_empty and not (reply.heard and self._speaker.has_sound):
                self._manager.error(Role.LLM, FaultKind.EMPTY)
        elif self._speaker.has_sound and self._spoke_mono < reply.created_mono and says_something(items):
            self._error_mono[Role.TTS] = self._clock()
            self._manager.error(Role.TTS, FaultKind.SILENT)

    def _on_agent_state(self, event: Any) -> None:
        self._manager.looked()
        if event.new_state != "speaking":
            return
        now = self._clock()
        self.silence.heard(now)
        self._waited_since = None
        current = self._session.current_speech
        if self._speaker.is_own(current):
            self._speaker.heard(current)
            return
        self._spoke_mono = now
        for reply in self._replies:
            reply.heard = reply.heard or reply.handle is current
        if self._pending is not None and not self._pending.speculative:
            self._pending = None

    def _on_item(self, event: Any) -> None:
        item = event.item
        kind = getattr(item, "type", "")
        if kind == "agent_handoff":
            self.work.handed_over(self._clock())
        if kind != "message":
            return
        if item.role == "user":
            self._turn_committed()
            return
        ours = self._speaker.is_own_item(item) or self._speaker.is_own(self._session.current_speech)
        if item.role == "assistant" and not ours:
            self._agent_said(item)

    def _agent_said(self, item: Any) -> None:
        if not has_words(item.text_content or ""):
            return
        current = self._session.current_speech
        source = next((r.source for r in self._replies if r.handle is current), "generate_reply")
        if source == "generate_reply":
            self._manager.success(Role.LLM)
        # A reply that the voice broke off is in the history as well, as interrupted.
        if self._speaker.has_sound and self._error_mono.get(Role.TTS, 0.0) < self._spoke_mono:
            self._manager.success(Role.TTS)
        self.silence.heard(self._clock())

    def _on_tools_executed(self, _event: Any) -> None:
        self._manager.success(Role.LLM)

    def _on_tool(self, event: Any) -> None:
        self.work.tool(event.update, self._clock())

    # ------------------------------------------------------------------ what the caller does

    def hook_failed(self, kind: FaultKind) -> None:
        """The agent's own code kept the caller's turn from being answered: livekit says nothing of it."""
        self._turn_over()
        self._pending = None
        self._manager.error(self._model_role(), kind)

    def _turn_committed(self) -> None:
        self._turn_over()
        pending, self._pending = self._pending, None
        if pending is not None and pending.handle is not None and not pending.handle.interrupted:
            self._manager.error(pending.role, pending.kind)
        self._patience.begin(self.turn)

    def _turn_over(self) -> None:
        if not self._turn_open:
            self.turn += 1
        self._turn_open = False
        self.turns += 1
        now = self._clock()
        if not (self._realtime() and self._spoke_mono > self._speech_start_mono > 0.0):
            # (A realtime model may have answered before it tells the caller's words.)
            self.silence.turn_ended(
                self._speech_end_mono if 0.0 < now - self._speech_end_mono < 10.0 else now
            )
        self._speech_end_mono = 0.0

    def _on_transcript(self, event: Any) -> None:
        if not event.transcript.strip():
            return
        self._transcript_mono = self._clock()
        self._asked_again = False
        if event.is_final:
            self._manager.success(Role.STT)
            self._hook.watch()
            if event.language:
                self._manager.spoke_language(str(event.language))

    def _on_user_state(self, event: Any) -> None:
        now = self._clock()
        if event.new_state == "speaking":
            self._speech_start_mono, self._speech_began_at = now, event.created_at
            self._waited_since = self.silence.waiting_since
            self.silence.heard(now)
            if not self._turn_open:
                self._turn_open, self._speech_s = True, 0.0
                self.turn += 1
            return
        if event.old_state != "speaking":
            return
        # livekit dates the end of speech back by the silence it took to notice.
        self._speech_end_mono = now - min(max(time.time() - event.created_at, 0.0), 5.0)
        self._speech_s = max(self._speech_s, event.created_at - self._speech_began_at)
        since, self._waited_since = self._waited_since, None
        if since is not None and self._speech_start_mono > self._transcript_mono and self._replying():
            # A cough, so far: the caller still waits for the reply to what they said before.
            self.silence.turn_ended(since)
            self._patience.begin(self.turn)
        if self._error_mono.get(Role.STT, 0.0) > self._transcript_mono:
            self._later(_AFTER_SILENCE_S, self._deaf_check, self.turn)
        if self._pending is not None and not self._pending.speculative:
            self._later(_NEW_WORDS_S, self._speak_up, self._pending)

    def _speak_up(self, pending: Pending) -> None:
        if self._pending is pending and self._session.user_state != "speaking":
            self._pending = None
            self._manager.error(pending.role, pending.kind)

    def _on_no_transcript(self, _event: Any) -> None:
        # livekit adds up all sounds of the turn: three clicks would pass for speech.
        if self._options.deaf_after_s and self._speech_s >= _SPEECH_MIN_S:
            self._deaf(self.turn)

    def _deaf_check(self, turn: int) -> None:
        if self.turn == turn and self._session.user_state != "speaking" and self._waits_for_words():
            self._deaf(turn)

    def _waits_for_words(self) -> bool:
        """The caller has spoken in this turn, and nothing was understood."""
        return self._turn_open and self._speech_start_mono > self._transcript_mono

    def _deaf(self, turn: int) -> None:
        if turn != self.turn or self._session.agent_state == "speaking" or not self._turn_open:
            return
        if self.work.tool_runs or self._replying():
            return  # an answer is on its way; a caller who meant to interrupt says so again
        noted = self._link.last_fault(Role.STT, self._speech_start_mono)
        down = self._error_mono.get(Role.STT, 0.0) > self._transcript_mono
        if not down and noted is None:
            # The recogniser thinks that all is well: it may hang, or the speech was none. It gets a fresh stream.
            self._guard.reset_stt()
        self.turns += 1
        self.silence.turn_ended(self._speech_end_mono or self._clock())
        # A barking dog does not count; but what is not understood again and again is no way to go on.
        counts = down or noted is not None or self._asked_again
        self._asked_again = True
        self._manager.error(Role.STT, noted.kind if noted is not None else FaultKind.SILENT, counts=counts)

    # ------------------------------------------------------------------ inside

    def _on_close(self, event: Any) -> None:
        self.silence.heard(self._clock())
        self._manager.closed(event)

    def _live(self) -> list[Reply]:
        return [reply for reply in self._replies if not reply.handle.done()]

    def _replying(self) -> bool:
        """A reply to the caller's last turn is being made, or spoken."""
        return any(reply.handle.scheduled for reply in self._live())

    def _model_role(self) -> Role:
        return Role.REALTIME if self._realtime() else Role.LLM

    def _realtime(self) -> bool:
        return isinstance(self._guard.component(Role.LLM), llm.RealtimeModel)

    def _later(self, delay_s: float, call: Callable[[Any], None], argument: Any) -> asyncio.TimerHandle:
        def due() -> None:
            self._timers.discard(timer)
            harmless("timer", call)(argument)

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)
        return timer
