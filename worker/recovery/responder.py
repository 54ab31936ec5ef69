"""Carries decisions out: asks the user's handlers, speaks, and ends or hands over a call that cannot go on."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from livekit.agents import Agent, AgentSession
from livekit.agents.voice import SpeechHandle

from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.counters import Count, ErrorCounters
from worker.recovery.decisions import Decision, Do, decide
from worker.recovery.handlers import Handlers, RecoveryEvent, cancelled_by_us
from worker.recovery.lines import Lines
from worker.recovery.options import RecoveryOptions
from worker.recovery.phrases import FallbackMessages
from worker.recovery.speaker import Speaker

OWN_WORDS_S: Final = 0.9
"""How long our own words may take to sound before a recording is played instead…"""
SOUND_BY_S: Final = 2.45
"""…less when the caller has waited for long: by then there should be a sound, though the voice gets its chance."""
CHANCE_S: Final = 0.3
LATE_S: Final = 1.8
"""After so long a wait, words that were made in the own voice before are played rather than asked for anew."""
LOOK_S: Final = 0.05
HANDOFF_LOOKS: Final = 20
HANDOFF_LOOK_S: Final = 0.1
TRANSFER_TIMEOUT_S: Final = 30.0
TRANSFERS_MAX: Final = 2
"""Who fails as well is given up on: a call is not handed round for ever."""
FINAL_PLAYOUT_S: Final = 20.0

Spawn = Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]


class Watched(Protocol):
    """What is seen of the session."""

    @property
    def turn(self) -> int: ...
    @property
    def tts_is_dead(self) -> bool: ...
    @property
    def waited_s(self) -> float: ...
    def spoke_since(self, mono: float) -> bool: ...
    def apologised(self) -> None: ...
    def voice_failed(self) -> None: ...


@dataclass(slots=True)
class _Said:
    """The last thing said on the agent's behalf."""

    turn: int
    at_mono: float
    handle: SpeechHandle
    recorded: bool
    final: bool


class Responder:
    """One session's. `error` never waits; what follows runs in tasks made by `spawn`."""

    def __init__(
        self,
        session: AgentSession[Any],
        watch: Watched,
        speaker: Speaker,
        *,
        counters: ErrorCounters,
        messages: FallbackMessages,
        handlers: Handlers,
        options: RecoveryOptions,
        lines: Lines,
        spawn: Spawn,
        source: Callable[[Role], str],
    ) -> None:
        self._session, self._watch, self._speaker = session, watch, speaker
        self._counters, self._messages, self._handlers = counters, messages, handlers
        self._options, self._lines, self._spawn, self._source = options, lines, spawn, source
        self._last: _Said | None = None
        self._hearing: asyncio.Task[Any] | None = None
        self.apologies = self.final_messages = 0
        self.ending = False
        self.outcome = ""
        self._transfers = 0

    def error(self, role: Role, kind: FaultKind, *, counts: bool) -> None:
        """An error that the caller waits behind. counts: False for what no service can be blamed for."""
        if self.ending or self._closing():
            return
        name = role.value
        self._lines.warning("error", f"{name.upper()} error: {kind.value}", role=name, kind=kind.value)
        self._lines.info("source", f"Error source: {self._source(role)}", role=name)
        counters = self._counters
        count = counters.error(role, kind, self._watch.turn) if counts else counters.note(role, kind)
        self._lines.info("count", f"Error count for {name}: {count.count}/{count.limit}", role=name)
        decision = decide(role, kind, count, voice_dead=self._watch.tts_is_dead)
        if not self._said_enough(role, final=decision.do is Do.FINAL):
            self._spawn(self._respond(decision, count), "recovery")

    async def _respond(self, decision: Decision, count: Count) -> None:
        begun_mono = time.monotonic()
        name = decision.role.value
        event = RecoveryEvent(
            role=decision.role,
            kind=decision.kind,
            count=count.count,
            limit=count.limit,
            do=decision.do,
            text=self._messages.next(self._keys(decision)),
            language=self._messages.language,
            session=self._session,
        )
        text = event.text
        await self._handlers.run(event)
        do = _meant(event.do, decision.do)
        final = do is Do.FINAL
        if do is Do.NOTHING or self.ending or self._closing():
            return
        if self._said_enough(decision.role, final=final):
            return  # two errors at once: the other one was said while the handlers were asked
        if not isinstance(event.text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's handler may set anything
            event.text = text
        if do is not decision.do and event.text == text:
            event.text = self._messages.next(self._keys(replace(decision, do=do)))
        if not event.text.strip():
            if final:
                await self._give_up(None)
            return
        if not final and decision.role is not Role.TTS and self._watch.spoke_since(begun_mono):
            return  # an answer came while we made up our mind
        self._lines.info("attempt", f"Attempting {name.upper()} error recovery...", role=name)
        handle = self._speak(event.text, final=final, recorded=decision.voice_dead)
        waits = HANDOFF_LOOKS
        while handle is None:  # between two agents nobody can speak
            if not waits or self._closing():
                return
            waits -= 1
            await asyncio.sleep(HANDOFF_LOOK_S)
            handle = self._speak(event.text, final=final, recorded=decision.voice_dead)
        if final:
            await self._give_up(handle)
        else:
            self._lines.info("delivered", f"{name.upper()} fallback message delivered", role=name)

    def _speak(self, text: str, *, final: bool, recorded: bool) -> SpeechHandle | None:
        watch, speaker = self._watch, self._speaker
        speaker.hush()
        keys = self._final_keys if final else (Role.TTS.value,)
        waited_s = watch.waited_s
        clip = speaker.own_clip(text) if waited_s > LATE_S and not recorded else None
        texts = list(self._messages.choices(keys)[1])
        goodbye = self._how == "close"
        handle = speaker.say(text, final=final, recorded=recorded, texts=texts, clip=clip, goodbye=goodbye)
        if handle is None:
            return None
        last = self._last
        # A recording in the place of words that nobody heard is the same apology, or the same final message.
        once_more = last is not None and last.turn == watch.turn and not speaker.was_heard(last.handle)
        if final:
            self.final_messages += not (once_more and last is not None and last.final)
        elif not once_more:
            self.apologies += 1
        self._last = _Said(watch.turn, time.monotonic(), handle, recorded or clip is not None, final)
        watch.apologised()
        if not self._last.recorded and speaker.has_sound:
            left_s = min(OWN_WORDS_S, max(CHANCE_S, SOUND_BY_S - waited_s))
            self._hearing = self._spawn(self._make_heard(handle, text, final, left_s), "recovery-hear")
        return handle

    async def _make_heard(self, handle: SpeechHandle, text: str, final: bool, left_s: float) -> None:
        """Words of ours that do not sound in time are played from a recording."""
        while left_s > 0 and not handle.done():
            await asyncio.sleep(LOOK_S)
            # While the caller or another speech of the agent's is heard livekit holds ours back: that is no fault
            # of the voice.
            held_back = self._session.user_state == "speaking" or self._other_speaks(handle)
            left_s -= 0.0 if held_back else LOOK_S
            if self._speaker.was_heard(handle):
                return
        latest = self._last is not None and self._last.handle is handle
        if latest and not handle.interrupted and not self._speaker.was_heard(handle) and not self._closing():
            self._watch.voice_failed()
            self._speak(text, final=final, recorded=True)

    def _other_speaks(self, handle: SpeechHandle) -> bool:
        current = self._session.current_speech
        return current is not None and current is not handle and not current.done()

    @property
    def _how(self) -> str:
        how = self._options.on_exhausted
        return "close" if how == "transfer" and self._transfers >= TRANSFERS_MAX else how

    def _keys(self, decision: Decision) -> tuple[str, ...]:
        return self._final_keys if decision.do is Do.FINAL else decision.message_keys

    @property
    def _final_keys(self) -> tuple[str, ...]:
        return self._messages.final_keys(self._how)

    async def _give_up(self, handle: SpeechHandle | None) -> None:
        how = self._how
        self._lines.warning("gave_up", f"Too many errors: {how}", on_exhausted=how)
        if how == "stay":
            return
        self.ending, self.outcome = True, "gave_up"
        if handle is not None:
            await self._speaker.wait(handle, FINAL_PLAYOUT_S)
            if handle.done() and self._hearing is not None:
                # It did not sound? Then a recording is about to be played.
                await asyncio.wait({self._hearing})
        while (late := self._speaker.speaking) is not None and late is not handle:
            handle = late  # words still being said, or the recording that took their place
            await self._speaker.wait(handle, FINAL_PLAYOUT_S)
        if how == "transfer":
            self.outcome = "transferred"  # who is put through leaves, maybe before the hook has ended
            if await self._transfer():
                self.ending = False
                return
            self.outcome = "gave_up"
        if not self._closing():
            self._session.shutdown(drain=True)

    async def _transfer(self) -> bool:
        """Whether somebody else has the call now."""
        hook = self._options.transfer
        if hook is None:
            return False
        self._transfers += 1
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_S):
                answer = hook(self._session)
                if inspect.isawaitable(answer):
                    answer = await answer
            if answer is False:
                return False
            if isinstance(answer, Agent):
                self._session.update_agent(answer)
        except BaseException as exc:  # a user's hook, whatever it raises; the call is closed instead
            if cancelled_by_us(exc):
                raise
            self._lines.warning("gave_up", "transfer failed", error=type(exc).__name__)
            return False
        self._last = None  # what fails from now on is somebody else's, and the caller has not heard of it
        for role in Role:
            self._counters.success(role)
        return True

    def _said_enough(self, role: Role, *, final: bool) -> bool:
        """In a turn none soon after another; but what was not heard, or a final message, may follow an apology."""
        last = self._last
        if last is None or last.turn != self._watch.turn or (final and not last.final):
            return False
        if role is Role.TTS and not last.recorded:
            return False
        return time.monotonic() - last.at_mono < self._options.min_gap_s

    def _closing(self) -> bool:
        closing: bool = self._session._is_closing()  # pyright: ignore[reportPrivateUsage]  # no public way to ask in 1.8.9
        return closing


def _meant(do: object, otherwise: Do) -> Do:
    """What a handler set `event.do` to, a plain word too; nonsense is no decision."""
    try:
        return Do(do)
    except ValueError:
        return otherwise
