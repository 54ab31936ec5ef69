"""What a transcriber makes of sound: when someone speaks, what was said, and when they are done. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.simulator.wordcode import Decoder, Heard, Pcm

__all__ = ["Ear", "Happening"]

FRAME_S = 0.02
LOUD_RMS = 120.0
"""Of 32768: 20 dB under the quietest word of a caller, above the noise of a resampler."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something heard; ``words`` are those of the utterance so far, ``at_s`` the sound's own time."""

    kind: Literal["start", "update", "eager_end", "resume", "end"]
    at_s: float
    words: tuple[Heard, ...] = ()

    @property
    def text(self) -> str:
        """The words as a transcript."""
        return " ".join(word.word for word in self.words)


class Ear:
    """Finds utterances and their words in mono PCM16 pushed in pieces of any size."""

    def __init__(
        self, sample_rate: int, end_of_turn_s: float = 0.3, eager_end_s: float | None = None
    ) -> None:
        self._decoder = Decoder(sample_rate)
        self._rate = sample_rate
        self._frame = round(FRAME_S * sample_rate)
        self._rest = np.zeros(0, np.int16)
        self._at = 0
        self._end_of_turn_s = end_of_turn_s
        self._eager_end_s = eager_end_s
        self._words: list[Heard] = []
        self._speaking = False
        self._eager = False
        self._loud_s = 0.0

    @property
    def speaking(self) -> bool:
        """Whether an utterance is going on."""
        return self._speaking

    def push(self, pcm: Pcm) -> list[Happening]:
        """More sound; what happened in it."""
        happened: list[Happening] = []
        self._rest = np.concatenate([self._rest, pcm])
        while len(self._rest) >= self._frame:
            frame, self._rest = self._rest[: self._frame], self._rest[self._frame :]
            self._at += self._frame
            happened += self._hear(frame)
        return happened

    def finish(self) -> list[Happening]:
        """Ends an utterance that is going on."""
        return [self._end()] if self._speaking else []

    def _hear(self, frame: Pcm) -> list[Happening]:
        at_s = self._at / self._rate
        happened: list[Happening] = []
        if float(np.sqrt(np.mean(frame.astype(np.float64) ** 2))) >= LOUD_RMS:
            self._loud_s = at_s
            if not self._speaking:
                self._speaking = True
                happened.append(Happening("start", at_s))
            elif self._eager:
                self._eager = False
                happened.append(Happening("resume", at_s, tuple(self._words)))
        words = self._decoder.push(frame)
        if words and self._speaking:
            self._words += words
            happened.append(Happening("update", at_s, tuple(self._words)))
        quiet_s = at_s - self._loud_s
        if self._speaking and quiet_s >= self._end_of_turn_s:
            happened.append(self._end())
        elif (
            self._speaking
            and not self._eager
            and self._eager_end_s is not None
            and quiet_s >= self._eager_end_s
            and self._words
        ):
            self._eager = True
            happened.append(Happening("eager_end", at_s, tuple(self._words)))
        return happened

    def _end(self) -> Happening:
        ended = Happening("end", self._at / self._rate, tuple(self._words))
        self._speaking = self._eager = False
        self._words = []
        return ended
