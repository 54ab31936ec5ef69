"""Speaks to the caller on recovery's behalf: with the voice, as text, or with recorded sound.

Rules: every speech of ours is known by its handle, so that nothing it causes is taken for a success or an error of
the agent's; it can be interrupted; it waits for the caller to stop speaking (livekit does, for interruptible
speech); it stays out of the model's context unless wished; nothing here raises.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Generator
from typing import Any

import structlog
from livekit.agents import AgentSession, llm
from livekit.agents.voice import SpeechHandle

from supervisor.wire.vocabulary import Role
from worker.recovery.audio import Clip
from worker.recovery.guard_session import SessionGuard
from worker.recovery.sounds import Sounds

log = structlog.get_logger("worker.recovery")


class Speaker:
    """One session's."""

    def __init__(
        self,
        session: AgentSession[Any],
        guard: SessionGuard,
        sounds: Sounds,
        *,
        add_to_chat_ctx: bool = False,
    ) -> None:
        self._session = session
        self._guard = guard
        self._sounds = sounds
        self._add_to_chat_ctx = add_to_chat_ctx
        self._own: deque[SpeechHandle] = deque(maxlen=16)
        self._heard: SpeechHandle | None = None
        self.saying = False
        """True while `session.say` runs on our behalf: what it creates is ours before we have its handle."""

    @property
    def has_sound(self) -> bool:
        """Whether the caller hears the session (a text session goes without)."""
        output = self._session.output
        return output.audio is not None and output.audio_enabled

    def is_own(self, handle: SpeechHandle | None) -> bool:
        """Whether a speech is ours."""
        return any(handle is own for own in self._own)

    def is_own_item(self, item: Any) -> bool:
        """Whether a conversation item came from a speech of ours."""
        return any(any(item is mine for mine in own.chat_items) for own in self._own)

    @property
    def speaking(self) -> SpeechHandle | None:
        """A speech of ours that is not over."""
        return next((own for own in reversed(self._own) if not own.done()), None)

    def heard(self, handle: SpeechHandle | None) -> None:
        """The caller hears it now."""
        self._heard = handle

    def was_heard(self, handle: SpeechHandle) -> bool:
        """Whether the caller heard (a part of) it."""
        return self._heard is handle

    def hush(self) -> None:
        """Stop what we are saying, so that something else can be said."""
        for own in self._own:
            if not own.done():
                own.interrupt(force=True)

    def own_clip(self, text: str) -> Clip | None:
        """These very words in the agent's own voice, if they were made before."""
        return self._sounds.own_voice.get([text]) if self.has_sound else None

    def say(
        self,
        text: str,
        *,
        final: bool,
        recorded: bool,
        texts: list[str],
        clip: Clip | None = None,
        goodbye: bool = True,
    ) -> SpeechHandle | None:
        """Say `text`, or play what is recorded in its place (`clip`, if given). None when nobody can speak."""
        self.saying = True
        try:
            if clip is None and self.has_sound and (recorded or not self._can_speak()):
                clip = self._sounds.clip(final=final, texts=[text, *texts], goodbye=goodbye)
            try:
                handle = self._say(text, clip)
            except TypeError:
                # A user's `speech_created` listener raised it, before livekit queued the speech: once more without.
                with _nobody_listens(self._session):
                    handle = self._say(text, clip)
        except RuntimeError:
            # The session is closing, or was never started: there is nobody left to speak to.
            log.info("nobody to speak to", action="recovery.not_spoken")
            return None
        finally:
            self.saying = False
        self._own.append(handle)
        return handle

    def _say(self, text: str, clip: Clip | None) -> SpeechHandle:
        given: dict[str, Any] = {"allow_interruptions": True, "add_to_chat_ctx": self._add_to_chat_ctx}
        if clip is None:
            return self._session.say(text, **given)
        return self._session.say(clip.text or text, audio=clip.play(), **given)

    def _can_speak(self) -> bool:
        if self._guard.component(Role.TTS) is not None:
            return True
        model = self._guard.component(Role.LLM)
        return isinstance(model, llm.RealtimeModel) and model.capabilities.supports_say

    async def wait(self, handle: SpeechHandle, timeout_s: float) -> None:
        """Wait until it is said, at most so long; a cancelled wait leaves the speech alone."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def over(_: SpeechHandle) -> None:
            if not done.done():
                done.set_result(None)

        handle.add_done_callback(over)
        await asyncio.wait({done}, timeout=timeout_s)
        handle.remove_done_callback(over)


@contextlib.contextmanager
def _nobody_listens(session: AgentSession[Any]) -> Generator[None]:
    """Without a session's `speech_created` listeners; nothing may be awaited inside."""
    events: dict[str, Any] = vars(session)["_events"]
    listeners = events.pop("speech_created", None)
    try:
        yield
    finally:
        if listeners is not None:
            events["speech_created"] = listeners
