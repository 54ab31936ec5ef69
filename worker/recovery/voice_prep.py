"""Which messages are made in the own voice, with which voice, and when nobody is disturbed by it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from livekit.agents import AgentSession

from supervisor.wire.vocabulary import FaultKind, Role
from worker.recovery.guard_session import SessionGuard
from worker.recovery.observed_link import ObservedLink
from worker.recovery.options import OnExhausted
from worker.recovery.own_voice import OwnVoice
from worker.recovery.phrases import FallbackMessages
from worker.recovery.speaker import Speaker
from worker.recovery.watch import SessionWatch


@dataclass(frozen=True, slots=True)
class VoicePrep:
    """One session's. `run` for the voice that speaks now; again for each one that takes over."""

    session: AgentSession[Any]
    guard: SessionGuard
    speaker: Speaker
    watch: SessionWatch
    link: ObservedLink
    messages: FallbackMessages
    own_voice: OwnVoice
    on_exhausted: OnExhausted

    async def run(self) -> None:
        """Have the messages made that are not there yet."""
        plugin = self.guard.plugin(Role.TTS)
        if plugin is None or not self.speaker.has_sound:
            return
        messages = self.messages
        # What is needed most comes first; a call that is over sooner leaves the rest to the next one.
        keys = (
            Role.TTS.value,
            *messages.final_keys(self.on_exhausted),
            Role.LLM.value,
            Role.STT.value,
            f"{Role.LLM.value}.{FaultKind.RATE_LIMIT.value}",
        )
        texts = [text for key in keys for text in messages.choices((key,))[1]]
        await self.own_voice.prepare(plugin, texts, messages.language, self._calm)

    async def _calm(self) -> bool:
        """Wait for a moment in which the voice is known to work and nobody needs it."""
        session = self.session
        while not cast("Any", session)._is_closing():
            idle = session.agent_state in ("listening", "idle") and session.user_state != "speaking"
            if idle and self.link.successes[Role.TTS] and not self.watch.tts_is_dead:
                return True
            await asyncio.sleep(0.2)
        return False
