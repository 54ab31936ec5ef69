"""What the caller said and no recogniser has answered for yet. Pure: time comes in as an argument.

Positions are seconds of audio since the stream began. A tape holds at most `MAX_S` seconds, of an utterance that words
were found in `WORDED_MAX_S`: the oldest sound goes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]

MAX_S: Final = 30.0
WORDED_MAX_S: Final = 120.0
"""Somebody may tell a long story without a pause: 6 MB at 24 kHz."""
PRE_ROLL_S: Final = 0.3
"""Kept before the first loud frame: consonants begin quietly."""
MIN_GAP_S: Final = 0.25
"""The shortest pause that parts two utterances; recognisers end a turn after 0.3 s and more."""
RESUMED_S: Final = 0.6
"""Whoever speaks again since so short a time was not answered for by what comes now."""
LOUD_RMS: Final = 130.0
"""Of 32768, -48 dBFS: well below speech at a distance, above the noise of a line."""
_FLOOR_RISE_S: Final = 20.0
"""How slowly the noise floor follows louder sound: a pause between words brings it down again at once."""
_OVER_FLOOR: Final = 3.0


class Meter:
    """Tells loud frames from quiet ones over a noise floor that it learns."""

    def __init__(self) -> None:
        self._floor = LOUD_RMS / 4

    def loud(self, pcm: Pcm, seconds: float) -> bool:
        """Whether a frame may be speech."""
        if not len(pcm):
            return False
        rms = math.sqrt(float(np.mean(pcm.astype(np.float32) ** 2)))
        loud = rms >= max(LOUD_RMS, _OVER_FLOOR * self._floor)
        if rms < self._floor:
            self._floor = (rms + self._floor) / 2
        else:
            self._floor += (rms - self._floor) * (1 - math.exp(-seconds / _FLOOR_RISE_S))
        return loud


class Item(NamedTuple):
    """A frame (or a flush, as None) with its place on the tape."""

    frame: Any
    at_s: float
    seconds: float
    loud: bool
    mono: float


class Tape:
    """Sound since the last final transcript."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._held_s = 0.0
        self.worded = False
        """A recogniser found words in it, but has not finished with it."""
        self.end_s = 0.0
        self.speech_s = 0.0
        """Loud seconds on the tape."""
        self.last_loud_mono = 0.0
        self.dropped_s = 0.0

    @property
    def first_loud_mono(self) -> float:
        """When the first loud frame on the tape came; 0.0: there is none."""
        return next((item.mono for item in self._items if item.loud), 0.0)

    @property
    def held_s(self) -> float:
        """Length of what is on the tape."""
        return self._held_s

    def push(self, frame: Any, seconds: float, loud: bool, now_mono: float) -> None:
        """The next frame."""
        self._items.append(Item(frame, self.end_s, seconds, loud, now_mono))
        self.end_s += seconds
        self._held_s += seconds
        if loud:
            self.speech_s += seconds
            self.last_loud_mono = now_mono
        max_s = WORDED_MAX_S if self.worded else MAX_S
        while self._held_s > max_s and len(self._items) > 1:
            self.dropped_s += self._drop().seconds

    def flush(self, now_mono: float) -> None:
        """The caller of the stream asked to finish the segment here."""
        self._items.append(Item(None, self.end_s, 0.0, loud=False, mono=now_mono))

    def replay(self) -> list[Item]:
        """What another recogniser needs to hear: from just before the first loud frame; nothing when there is none."""
        first = next((item.at_s for item in self._items if item.loud), None)
        if first is None:
            return []
        return [item for item in self._items if item.at_s + item.seconds > first - PRE_ROLL_S + 0.001]

    def answered(self, end_s: float | None = None) -> None:
        """A final transcript came: forget what it covers. `end_s`: where its last word ended, when that is known.

        Without it: everything before the pause that goes on now, or, when the caller speaks again already, before
        the last pause; a gap between two words is none when they have just begun.
        """
        self.worded = False
        cut = end_s if end_s is not None else self._pause()
        while self._items and self._items[0].at_s + self._items[0].seconds <= cut + 0.001:
            self._drop()

    def forget(self) -> None:
        """Nothing on it matters."""
        self.worded = False
        while self._items:
            self._drop()

    def _pause(self) -> float:
        runs = list(self._quiet_runs())
        pauses = [run for run in runs if run[1] - run[0] >= MIN_GAP_S]
        if pauses and pauses[-1][1] >= self.end_s - RESUMED_S:
            return pauses[-1][0]
        last = [*pauses, *(run for run in runs[-1:] if run[1] >= self.end_s - 0.001)]
        return last[-1][0] if last else self.end_s

    def _quiet_runs(self) -> Iterator[tuple[float, float]]:
        begin: float | None = None
        for item in self._items:
            if item.loud:
                if begin is not None:
                    yield begin, item.at_s
                begin = None
            elif begin is None and item.seconds:
                begin = item.at_s
        if begin is not None:
            yield begin, self.end_s

    def _drop(self) -> Item:
        item = self._items.popleft()
        self._held_s -= item.seconds
        if item.loud:
            left = self.speech_s - item.seconds
            self.speech_s = left if left > 1e-6 else 0.0
        return item
