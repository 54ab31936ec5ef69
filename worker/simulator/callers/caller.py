"""A caller: speaks a sentence, listens until the answer ends or patience does, notes it, speaks again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from livekit.agents import AgentSession

from worker.simulator.callers.audio import MIC_RATE, ListeningOutput, ScriptedCallerInput
from worker.simulator.callers.ears import Ears
from worker.simulator.callers.records import Summary, Turn
from worker.simulator.speech import Sentence, sentences

__all__ = ["Caller", "Manners"]

_LOOK_S = 0.02


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """How a caller behaves, in seconds.

    ``patience_s`` of silence make a turn silent; an answer is over after ``answer_gap_s`` without sound; then the
    caller waits ``pause_s`` before speaking; ``listen_first_s`` is given to a greeting.
    """

    patience_s: float = 8.0
    answer_gap_s: float = 1.0
    pause_s: float = 0.6
    listen_first_s: float = 0.4


class Caller:
    """A conversation partner with a microphone (``input``) and a loudspeaker (``output``).

    ``on_turn`` is called with each turn as it ends. The same name and seed say the same things.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        speech: Sequence[Sentence] | None = None,
        manners: Manners | None = None,
        on_turn: Callable[[Turn], None] | None = None,
        sample_rate: int | None = 24_000,
    ) -> None:
        self.name = name
        self.manners = manners or Manners()
        self.ears = Ears()
        self.input = ScriptedCallerInput(label=name)
        self.output = ListeningOutput(self.ears, sample_rate=sample_rate, label=name)
        self.turns: list[Turn] = []
        self._on_turn = on_turn
        self._ended = asyncio.Event()
        self._speech = list(speech or sentences())
        random.Random(f"{name}\x00{seed}").shuffle(self._speech)

    def attach(self, session: AgentSession[Any]) -> None:
        """Becomes the session's user; before ``session.start`` or after it."""
        session.input.audio = self.input
        session.output.audio = self.output
        cast("Any", session).on("close", self.call_ended)

    def call_ended(self, *_: object) -> None:
        """The other side hung up: the caller notices, and ``run`` returns (any event's arguments are taken)."""
        self._ended.set()

    async def run(self, turns: int | None = None, for_s: float | None = None) -> Summary:
        """Talks for so many turns or seconds (for ever without either), and sums it up.

        A turn that has begun is finished. It ends early when the other side hangs up; cancelling is hanging up.
        """
        began_mono = time.monotonic()
        await self._quiet(self.manners.listen_first_s, began_mono)
        while not self._ended.is_set() and (turns is None or len(self.turns) < turns):
            if for_s is not None and time.monotonic() - began_mono >= for_s:
                break
            turn = await self._turn(self._speech[len(self.turns) % len(self._speech)])
            if turn is None:
                break
            self.turns.append(turn)
            if self._on_turn is not None:
                self._on_turn(turn)
            await asyncio.sleep(self.manners.pause_s)
        return self.summary()

    def summary(self) -> Summary:
        """The call so far."""
        return Summary.of(self.name, self.turns, closed=self._ended.is_set())

    async def aclose(self) -> None:
        """Hangs up."""
        self.input.close()
        await self.output.aclose()

    async def _turn(self, sentence: Sentence) -> Turn | None:
        """One turn; None when the call ended before the caller had said it all."""
        speaking_mono = time.monotonic()
        end_mono = await self._say(sentence)
        if end_mono is None:
            return None
        end_at = time.time_ns() // 1_000_000 - round((time.monotonic() - end_mono) * 1000)
        overlap_s = self._sound_between(speaking_mono, end_mono)
        await self._first_sound(end_mono)
        await self._quiet(self.manners.answer_gap_s)
        first_mono, last_mono = self.ears.first_sound_after(end_mono), self.ears.last_sound()
        heard = self.ears.words_after(end_mono)
        return Turn(
            caller=self.name,
            turn=len(self.turns) + 1,
            said=sentence.text,
            speech_end_at=end_at,
            dead_air_s=None if first_mono is None else round(first_mono - end_mono, 3),
            silent=first_mono is None,
            heard=[word.word for word in heard],
            heard_s=[
                (round(word.start_mono - end_mono, 3), round(word.end_mono - end_mono, 3)) for word in heard
            ],
            answer_s=0.0 if first_mono is None or last_mono is None else round(last_mono - first_mono, 3),
            gap_s=round(self.ears.longest_gap_after(end_mono), 3),
            overlap_s=round(overlap_s, 3),
            speech_s=round(len(sentence.pcm) / MIC_RATE, 3),
        )

    async def _say(self, sentence: Sentence) -> float | None:
        said = self.input.speak(sentence.pcm)
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([said, ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        return said.result() if said.done() and not said.cancelled() else None

    def _sound_between(self, start_mono: float, end_mono: float) -> float:
        return sum(
            max(0.0, min(sound.end_mono, end_mono) - max(sound.start_mono, start_mono))
            for sound in self.ears.sounds
        )

    async def _first_sound(self, after_mono: float) -> None:
        """Waits for sound after a time, as long as patience lasts."""
        while self.ears.first_sound_after(after_mono) is None:
            if self._ended.is_set() or time.monotonic() - after_mono >= self.manners.patience_s:
                return
            await asyncio.sleep(_LOOK_S)

    async def _quiet(self, gap_s: float, since_mono: float = 0.0) -> None:
        """Waits until there was no sound for so long; while a speech is under way, as long as patience lasts."""
        while not self._ended.is_set():
            quiet_s = time.monotonic() - max(self.ears.last_sound() or 0.0, since_mono)
            if quiet_s >= (self.manners.patience_s if self.output.pending else gap_s):
                return
            await asyncio.sleep(_LOOK_S)
