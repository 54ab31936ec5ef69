"""What one voice has said of a script: which of its audio may be let out, and where the next voice must begin.

Rules of this module:
1. With word times, audio is let out only up to the end of the last known word, so that a failure never leaves
   a word half said: the next voice begins with the word after.
2. Without word times, audio is let out as it comes, and the next voice begins with the sentence being spoken
   (`sentence()` says which that is).
3. Nothing is let out before the first audible sound, of a voice or of a sentence: digital silence is not speech,
   and the next voice begins with a sentence that was nothing else.
4. Audio is not held back for ever for want of times (`MAX_HELD_S`, `GRACE_S`).

Pure: wall and monotonic time come in as arguments; seconds of audio are the voice's own.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.guard.tts_text import Script, has_words

Pcm = npt.NDArray[np.int16]

AUDIBLE_PEAK: Final = 33
"""Of 32768, -60 dBFS: below every voice and above dither, so nothing that can be heard counts as silence."""
MAX_HELD_S: Final = 1.0
"""More audio than this without a time means that times are late or missing: half-said words are the lesser evil."""
GRACE_S: Final = 0.12
"""How long the first sound may wait for the first word time: providers send it with the first chunks, and what a
caller waits for at the beginning of an answer weighs more than a first word said twice after a failure in it."""
WORD_ROOM_S: Final = 0.08
"""No word is shorter: audio that ends sooner than this after its last known word, with words left, was cut."""
_EPSILON_S: Final = 0.005
_DIRECTION: Final = re.compile(r"<[^>]*>|\[[^\]]*\]")
"""How it is to be said, a pause perhaps: nothing that must be heard."""


class Timed(NamedTuple):
    """A timed piece of transcript as livekit's plugins give it; `end_s` is None for whole sentences."""

    text: str
    start_s: float
    end_s: float | None


@dataclass(frozen=True, slots=True)
class Release:
    """What may go out now: pieces of transcript in the voice's own time, then audio."""

    pieces: tuple[Timed, ...] = ()
    audio: Pcm | None = None


@dataclass(slots=True)
class _Sentence:
    """One that a voice without word times is saying; where it begins in the text and in the audio."""

    text: str
    base: int
    from_samples: int
    sounded: bool = False


class Track:
    """One voice's part of a script, from `base` on. `channels` interleaved 16-bit samples at `rate`."""

    def __init__(
        self, script: Script, base: int, rate: int, *, channels: int = 1, expects_times: bool = False
    ) -> None:
        self._script = script
        self._rate = rate
        self._channels = channels
        self._expects_times = expects_times
        self._held: deque[Pcm] = deque()
        self._held_samples = 0
        self._out_samples = 0
        self._waiting: deque[tuple[Timed, int]] = deque()
        self._last_end_s = 0.0
        self._audible_at_mono: float | None = None
        self.said_to = base
        """Where the next voice begins."""
        self.known_to = base
        """Where the text is that the newest timed piece ends with."""
        self._begun_to = base
        self._sentence: _Sentence | None = None
        self.muted = False
        """Whether a sentence came as silence: `said_to` is where it begins."""
        self.timed = False
        self.sentences = False
        self.as_written = True

    @property
    def audible(self) -> bool:
        """Whether anything that can be heard has come."""
        return self._audible_at_mono is not None

    @property
    def received_s(self) -> float:
        """Audio that came, in seconds."""
        return self._received_samples / self._rate

    @property
    def _received_samples(self) -> int:
        return self._out_samples + self._held_samples

    @property
    def out_s(self) -> float:
        """Audio that was let out, in seconds."""
        return self._out_samples / self._rate

    def hear(self, pcm: Pcm, pieces: list[Timed], now_mono: float) -> None:
        """A frame, and the timed pieces that came with it."""
        for piece in pieces:
            if self.sentences and piece.end_s is None and not self.end_sentence():
                self._sentence = _Sentence(piece.text, self.known_to, self._received_samples)
            self._note(piece)
        if not len(pcm) or self.muted:
            return
        waited_for = self._audible_at_mono is None or (self._sentence and not self._sentence.sounded)
        if waited_for and int(np.abs(pcm.astype(np.int32)).max()) >= AUDIBLE_PEAK:
            self._audible_at_mono = self._audible_at_mono or now_mono
            if self._sentence is not None:
                self._sentence.sounded = True
        self._held.append(pcm)
        self._held_samples += len(pcm) // self._channels

    def sentence(self, text: str) -> None:
        """A voice without word times begins with a sentence: what is before it was said."""
        self.sentences = True
        self.said_to = self._script.before(self._begun_to)
        self._begun_to, _ = self._script.after(self._begun_to, text)

    def end_sentence(self) -> bool:
        """The sentence being spoken is over. True: it came as silence."""
        sentence = self._sentence
        if sentence is not None and not sentence.sounded and self._received_samples > sentence.from_samples:
            self.muted = has_words(_DIRECTION.sub("", sentence.text))
            if self.muted:
                self.said_to = self._script.before(sentence.base)
        return self.muted

    def release(self, now_mono: float, *, ended: bool = False) -> Release:
        """What may go out now; all of it when the voice has ended well."""
        limit = self._limit(now_mono, ended)
        pieces: list[Timed] = []
        while self._waiting:
            piece, end = self._waiting[0]
            if piece.end_s is not None and piece.end_s > limit + _EPSILON_S and not ended:
                break
            if piece.end_s is None and not self.audible:
                break
            self._waiting.popleft()
            if piece.end_s is not None:
                self.said_to = end
            if end > self._script.told_to:
                pieces.append(piece)
                self._script.told_to = end
        if ended:
            self.said_to = len(self._script.text)
        return Release(tuple(pieces), self._take(limit))

    def wait_s(self, now_mono: float) -> float | None:
        """Seconds until held audio may go out though no time came; None: nothing waits for that."""
        if self._audible_at_mono is None or not self._held_samples or self.timed or self.sentences:
            return None
        return max(0.0, self._audible_at_mono + GRACE_S - now_mono)

    def cut_short(self) -> bool:
        """Whether a good end came too early: words are left that the audio has no room for."""
        if not self.timed or not self.as_written:
            return False
        left = self._script.words_left(self.known_to)
        return left > 0 and self.received_s - self._last_end_s < WORD_ROOM_S * left

    def owes(self) -> bool:
        """Whether the voice is in the middle of a sentence, as far as its times tell."""
        return self.timed and self.as_written and not self._script.ends_sentence(self.known_to)

    def _note(self, piece: Timed) -> None:
        self.known_to, found = self._script.after(self.known_to, piece.text)
        self.as_written = self.as_written and found
        if piece.end_s is not None:
            self.timed = True
            self._last_end_s = max(self._last_end_s, piece.end_s)
        self._waiting.append((piece, self.known_to))

    def _limit(self, now_mono: float, ended: bool) -> float:
        received = self.received_s
        if ended:
            return received
        if self._audible_at_mono is None:
            return 0.0
        if self._sentence is not None and not self._sentence.sounded:
            return self._sentence.from_samples / self._rate
        if self.timed:
            whole = [
                p.end_s for p, _ in self._waiting if p.end_s is not None and p.end_s <= received + _EPSILON_S
            ]
            known = min(max([self.out_s, *whole]), received)
            return received if received - known > MAX_HELD_S else known
        if self.sentences or not self._expects_times:
            return received
        waited_s = now_mono - self._audible_at_mono
        return received if waited_s >= GRACE_S - _EPSILON_S or received > MAX_HELD_S else 0.0

    def _take(self, limit_s: float) -> Pcm | None:
        wanted = round(limit_s * self._rate) - self._out_samples
        if wanted <= 0:
            return None
        taken: list[Pcm] = []
        while wanted > 0 and self._held:
            head = self._held[0]
            samples = len(head) // self._channels
            if samples <= wanted:
                taken.append(self._held.popleft())
            else:
                cut = wanted * self._channels
                taken.append(head[:cut])
                self._held[0] = head[cut:]
                samples = wanted
            wanted -= samples
            self._held_samples -= samples
            self._out_samples += samples
        return np.concatenate(taken) if taken else None
