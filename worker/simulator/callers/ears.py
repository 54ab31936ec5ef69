"""What a caller hears: which words, when there was sound, all in monotonic time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from worker.simulator.wordcode import Decoder, Pcm

__all__ = ["Ears", "HeardWord", "Sound"]

FRAME_S = 0.02
AUDIBLE_RMS = 100.0
"""Of 32768 (-50 dB): below is silence to a caller on the phone."""
JOIN_S = 0.12
"""Pauses shorter than this are within one sound."""
KEPT = 5_000


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word and when its code was heard."""

    word: str
    start_mono: float
    end_mono: float


@dataclass(slots=True)
class Sound:
    """A stretch of audible sound."""

    start_mono: float
    end_mono: float


class Ears:
    """Notes sound as it is played. Memory is bounded: the newest 5,000 words and stretches."""

    def __init__(self) -> None:
        self.words: deque[HeardWord] = deque(maxlen=KEPT)
        self.sounds: deque[Sound] = deque(maxlen=KEPT)
        self._decoder: Decoder | None = None
        self._rate = 0
        self._pushed = 0
        self._anchors: deque[tuple[float, float]] = deque(maxlen=64)
        """Seconds of the decoder's stream, and the monotonic time they were heard at."""

    def hear(self, pcm: Pcm, sample_rate: int, start_mono: float) -> None:
        """Some sound that began to be heard then; silence is heard too, or nothing need be pushed."""
        if self._decoder is None or sample_rate != self._rate:
            self._decoder, self._rate, self._pushed = Decoder(sample_rate), sample_rate, 0
            self._anchors.clear()
        self._anchors.append((self._pushed / sample_rate, start_mono))
        self._pushed += len(pcm)
        for heard in self._decoder.push(pcm):
            self.words.append(HeardWord(heard.word, self._mono(heard.start_s), self._mono(heard.end_s)))
        self._note_sound(pcm, sample_rate, start_mono)

    def rest(self, start_mono: float) -> None:
        """Nothing more is played for now: the last word is taken in."""
        if self._decoder is not None:
            self.hear(np.zeros(self._rate // 20, np.int16), self._rate, start_mono)

    def first_sound_after(self, mono: float) -> float | None:
        """When sound was first heard at or after a time; None when there was none."""
        for sound in self.sounds:
            if sound.end_mono > mono:
                return max(sound.start_mono, mono)
        return None

    def last_sound(self) -> float | None:
        """When sound was last heard."""
        return self.sounds[-1].end_mono if self.sounds else None

    def words_after(self, mono: float) -> list[HeardWord]:
        """The words that ended after a time."""
        return [word for word in self.words if word.end_mono > mono]

    def longest_gap_after(self, mono: float) -> float:
        """The longest silence between two sounds after a time, in seconds."""
        after = [sound for sound in self.sounds if sound.end_mono > mono]
        return max((b.start_mono - a.end_mono for a, b in pairwise(after)), default=0.0)

    def _mono(self, stream_s: float) -> float:
        at = self._anchors[0]
        for anchor in self._anchors:
            if anchor[0] > stream_s:
                break
            at = anchor
        return at[1] + stream_s - at[0]

    def _note_sound(self, pcm: Pcm, sample_rate: int, start_mono: float) -> None:
        for begin_s, end_s in audible(pcm, sample_rate):
            start, end = start_mono + begin_s, start_mono + end_s
            if self.sounds and start - self.sounds[-1].end_mono < JOIN_S:
                self.sounds[-1].end_mono = max(end, self.sounds[-1].end_mono)
            else:
                self.sounds.append(Sound(start, end))


def audible(pcm: Pcm, sample_rate: int) -> Iterable[tuple[float, float]]:
    """The audible frames of 20 ms, as seconds from the beginning."""
    size = round(FRAME_S * sample_rate)
    for start in range(0, len(pcm), size):
        frame = pcm[start : start + size].astype(np.float64)
        if float(np.sqrt(np.mean(frame**2))) >= AUDIBLE_RMS:
            yield start / sample_rate, (start + len(frame)) / sample_rate
