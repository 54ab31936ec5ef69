"""Words that carry their own spelling in the sound.

Every word becomes one short 16-tone code (4 bits a symbol, 6 ms a symbol, 4.2 - 6.7 kHz) that ends where the
word ends, so that what was really heard can be read back from any audio at 14 kHz or more, however it was cut
up, resampled, compressed or mixed with speech below 3.6 kHz. A code is::

    sync (5 symbols) | header (2: mode and length) | spelling | CRC-16 (4)

A word whose beginning or end is missing does not decode: it is lost, never garbled. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_WORD_BYTES", "Decoder", "Heard", "code_duration_s", "decode", "encode_word", "mix", "speak"]

Pcm = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]

SYMBOL_S = 0.006
"""One symbol; tones are 1/SYMBOL_S apart, so that they do not disturb each other within one symbol."""
TONES = 16
LOW_HZ = 4166.667
TAIL_S = 0.004
"""The word goes on for so long after its code: shorter than a symbol, so a truncated word misses a symbol."""
MIN_WORD_S = 0.26
STEP_S = 0.001
"""The decoder looks for a code at every millisecond: at most half of it off, 8 % of a symbol."""
MAX_WORD_BYTES = 63
CODE_LEVEL = 0.16
CARRIER_LEVEL = 0.2

_SYNC = (0, 11, 5, 15, 8)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz'-.,?!"
_INDEX = {char: number for number, char in enumerate(_ALPHABET)}
_CAPITAL, _UTF8 = 1, 2
_PREFIX_SYMBOLS = len(_SYNC) + 2
_CRC_SYMBOLS = 4


@dataclass(frozen=True, slots=True)
class Heard:
    """A decoded word; seconds from the first sample pushed, of the code itself (its end is the word's)."""

    word: str
    start_s: float
    end_s: float


def _crc16(nibbles: Iterable[int]) -> int:
    crc = 0xFFFF
    for nibble in nibbles:
        crc ^= nibble << 12
        for _ in range(4):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def _payload_symbols(mode: int, length: int) -> int:
    return 2 * length if mode & _UTF8 else -(-5 * length // 4)


def _spell(word: str) -> tuple[int, int, list[int]]:
    """Mode, length (letters, or bytes of UTF-8) and nibbles of a word."""
    mode = _CAPITAL if word[:1].isascii() and word[:1].isupper() else 0
    plain = word[:1].lower() + word[1:] if mode else word
    if all(char in _INDEX for char in plain):
        if len(plain) > MAX_WORD_BYTES:
            raise ValueError(f"a word of {len(plain)} letters is too long; the code holds {MAX_WORD_BYTES}")
        bits = "".join(f"{_INDEX[char]:05b}" for char in plain)
        bits += "0" * (-len(bits) % 4)
        return mode, len(plain), [int(bits[i : i + 4], 2) for i in range(0, len(bits), 4)]
    raw = word.encode()
    if len(raw) > MAX_WORD_BYTES:
        raise ValueError(f"a word of {len(raw)} bytes is too long; the code holds {MAX_WORD_BYTES}")
    return _UTF8, len(raw), [nibble for byte in raw for nibble in (byte >> 4, byte & 15)]


def _unspell(mode: int, length: int, nibbles: Sequence[int]) -> str | None:
    if mode & _UTF8:
        raw = bytes(nibbles[i] << 4 | nibbles[i + 1] for i in range(0, 2 * length, 2))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None
    bits = "".join(f"{nibble:04b}" for nibble in nibbles)
    word = "".join(_ALPHABET[int(bits[5 * i : 5 * i + 5], 2)] for i in range(length))
    return word[:1].upper() + word[1:] if mode & _CAPITAL else word


@lru_cache(maxsize=4096)
def _symbols(word: str) -> tuple[int, ...]:
    if not word or word != "".join(word.split()):
        raise ValueError("a word must have letters and no blanks")
    mode, length, spelling = _spell(word)
    header = mode << 6 | length
    body = [header >> 4, header & 15, *spelling]
    crc = _crc16(body)
    return (*_SYNC, *body, crc >> 12, crc >> 8 & 15, crc >> 4 & 15, crc & 15)


def code_duration_s(word: str) -> float:
    """Length of a word's code in seconds."""
    return len(_symbols(word)) * SYMBOL_S


@lru_cache(maxsize=2048)
def _code(word: str, sample_rate: int, level: float) -> Floats:
    """The code alone, phase-continuous, as floats in -1 … 1."""
    symbols = np.asarray(_symbols(word))
    count = round(len(symbols) * SYMBOL_S * sample_rate)
    at = np.minimum((np.arange(count) / sample_rate / SYMBOL_S).astype(int), len(symbols) - 1)
    phase = np.cumsum(2 * np.pi * (LOW_HZ + symbols[at] / SYMBOL_S) / sample_rate)
    wave = level * np.sin(phase)
    edge = max(1, round(0.0005 * sample_rate))
    ramp = np.linspace(0.0, 1.0, edge)
    wave[:edge] *= ramp
    wave[-edge:] *= ramp[::-1]
    return wave.astype(np.float32)


def word_duration_s(word: str, min_word_s: float = MIN_WORD_S) -> float:
    """Length of a spoken word in whole milliseconds, as seconds: never shorter than its code."""
    return round(max(min_word_s, code_duration_s(word) + TAIL_S + 0.002) * 1000 + 0.4999) / 1000


@lru_cache(maxsize=2048)
def _spoken(word: str, sample_rate: int, carrier_hz: float, min_word_s: float) -> Pcm:
    count = round(word_duration_s(word, min_word_s) * sample_rate)
    time = np.arange(count) / sample_rate
    envelope = np.sin(np.pi * np.arange(count) / count) ** 0.5
    wave = (
        envelope
        * CARRIER_LEVEL
        * (np.sin(2 * np.pi * carrier_hz * time) + 0.4 * np.sin(6 * np.pi * carrier_hz * time))
    )
    _add_code(wave, _code(word, sample_rate, CODE_LEVEL), sample_rate, count)
    return (np.clip(wave, -1, 1) * 32767).astype(np.int16)


def _add_code(wave: npt.NDArray[Any], code: Floats, sample_rate: int, end: int) -> None:
    stop = end - round(TAIL_S * sample_rate)
    wave[stop - len(code) : stop] += code


def encode_word(
    word: str, sample_rate: int, *, carrier_hz: float = 190.0, min_word_s: float = MIN_WORD_S
) -> Pcm:
    """One spoken word as mono PCM16; ValueError when it is empty, has blanks or is too long."""
    return _spoken(word, sample_rate, carrier_hz, min_word_s).copy()


def speak(
    words: Sequence[str], sample_rate: int, *, carrier_hz: float = 190.0, min_word_s: float = MIN_WORD_S
) -> tuple[Pcm, list[tuple[float, float]]]:
    """Words one after the other: mono PCM16, and start and end of every word in seconds."""
    pieces = [_spoken(word, sample_rate, carrier_hz, min_word_s) for word in words]
    times: list[tuple[float, float]] = []
    at = 0
    for piece in pieces:
        times.append((at / sample_rate, (at + len(piece)) / sample_rate))
        at += len(piece)
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.int16)), times


def mix(words: Sequence[str], speech: Pcm, sample_rate: int) -> tuple[Pcm, list[tuple[float, float]]]:
    """Recorded speech, low-passed below the code's band, with one code a word spread evenly over it.

    The result is stretched with silence when the speech is too short for its words.
    """
    needed = [word_duration_s(word, 0.0) for word in words]
    slot_s = max(len(speech) / sample_rate / max(1, len(words)), max(needed, default=0.0))
    count = max(len(speech), round(slot_s * sample_rate * len(words)))
    wave = np.zeros(count)
    wave[: len(speech)] = _low_pass(speech.astype(np.float64) / 32768, sample_rate)
    wave *= 0.6 / max(0.05, float(np.abs(wave).max(initial=0.0)))
    times: list[tuple[float, float]] = []
    for number, word in enumerate(words):
        start, end = round(number * slot_s * sample_rate), round((number + 1) * slot_s * sample_rate)
        _add_code(wave, _code(word, sample_rate, CODE_LEVEL), sample_rate, min(end, count))
        times.append((start / sample_rate, end / sample_rate))
    return (np.clip(wave, -1, 1) * 32767).astype(np.int16), times


def _low_pass(
    wave: npt.NDArray[np.float64], sample_rate: int, cut_hz: float = 3500.0
) -> npt.NDArray[np.float64]:
    taps = np.arange(-64, 65)
    kernel = np.sinc(2 * cut_hz / sample_rate * taps) * np.hamming(len(taps))
    return np.convolve(wave, kernel / kernel.sum(), mode="same").astype(np.float64)


class _More(Enum):
    MORE = "the rest of the code has not come yet"


_MORE = _More.MORE


class Decoder:
    """Reads words from mono PCM16 pushed in pieces of any size.

    ``sample_rate`` in Hz, at least 14 kHz; ValueError below, where the code's band does not fit.
    """

    def __init__(self, sample_rate: int) -> None:
        if sample_rate < 14_000:
            raise ValueError(f"words cannot be read at {sample_rate} Hz; at least 14000 Hz is needed")
        self._rate = sample_rate
        self._window = round(SYMBOL_S * sample_rate)
        time = np.arange(self._window) / sample_rate
        angles = 2 * np.pi * np.outer(time, LOW_HZ + np.arange(TONES) / SYMBOL_S)
        shape = np.hanning(self._window + 2)[1:-1, None] ** 0.5
        self._basis = np.concatenate([np.cos(angles) * shape, np.sin(angles) * shape], axis=1).astype(
            np.float32
        )
        self._pcm = np.zeros(0, np.float32)
        self._dropped = 0
        """Samples before the start of ``_pcm``."""
        self._looked_ms = 0
        """Whole milliseconds of stream for which no code can begin any more."""
        self._tones = np.zeros(0, np.int8)
        """The loudest tone of the symbol that would begin at each millisecond, from ``_looked_ms`` on."""

    def push(self, pcm: Pcm | bytes | bytearray | memoryview) -> list[Heard]:
        """More samples; the words that are complete now, in order."""
        piece = pcm if isinstance(pcm, np.ndarray) else np.frombuffer(pcm, dtype=np.int16)
        self._pcm = np.concatenate([self._pcm, piece.astype(np.float32)])
        self._measure()
        return self._read()

    def _measure(self) -> None:
        """Finds the loudest tone at every millisecond that has a whole symbol of samples after it."""
        first_ms = self._looked_ms + len(self._tones)
        end_ms = (self._dropped + len(self._pcm) - self._window) * 1000 // self._rate
        if end_ms < first_ms:
            return
        starts = np.arange(first_ms, end_ms + 1) * self._rate // 1000 - self._dropped
        frames = self._pcm[starts[:, None] + np.arange(self._window)[None, :]]
        spectrum = frames @ self._basis
        power = spectrum[:, :TONES] ** 2 + spectrum[:, TONES:] ** 2
        self._tones = np.concatenate([self._tones, power.argmax(axis=1).astype(np.int8)])
        keep = (end_ms + 1) * self._rate // 1000 - self._dropped
        self._pcm = self._pcm[keep:]
        self._dropped += keep

    def _read(self) -> list[Heard]:
        heard: list[Heard] = []
        step = round(SYMBOL_S / STEP_S)
        tones = self._tones
        reach = step * (_PREFIX_SYMBOLS - 1)
        at = 0
        if len(tones) > reach:
            last = len(tones) - reach
            synced = np.ones(last, bool)
            for number, tone in enumerate(_SYNC):
                synced &= tones[number * step : number * step + last] == tone
            at = last
            free = 0
            for run in _runs(np.flatnonzero(synced)):
                if run[0] < free:
                    continue
                if run[-1] == last - 1:  # it may go on
                    at = run[0]
                    break
                done = self._decode_run(run, step)
                if done is _MORE:
                    at = run[0]
                    break
                if isinstance(done, tuple):
                    word, ms = done
                    begin_ms = self._looked_ms + (run[0] + run[-1]) / 2
                    heard.append(Heard(word, begin_ms / 1000, (begin_ms + ms) / 1000 + TAIL_S))
                    free = run[0] + ms - step
        self._tones = tones[at:]
        self._looked_ms += at
        return heard

    def _decode_run(self, run: list[int], step: int) -> tuple[str, int] | _More | None:
        """The word whose sync lies there, and its milliseconds; _MORE: samples are missing; None: no code.

        The sync fits at several neighbouring milliseconds; their middle is the best place to read from.
        """
        middle = (run[0] + run[-1]) / 2
        for start in sorted(run, key=lambda ms: abs(ms - middle)):
            done = self._decode_at(start, step)
            if done is not None:
                return done
        return None

    def _decode_at(self, start: int, step: int) -> tuple[str, int] | _More | None:
        tones = self._tones[start::step]
        sync = len(_SYNC)
        header = int(tones[sync]) << 4 | int(tones[sync + 1])
        mode, length = header >> 6, header & 63
        if length == 0 or mode > _UTF8:
            return None
        total = _PREFIX_SYMBOLS + _payload_symbols(mode, length) + _CRC_SYMBOLS
        if len(tones) < total:
            return _MORE
        body = [int(tone) for tone in tones[sync : total - _CRC_SYMBOLS]]
        crc = 0
        for tone in tones[total - _CRC_SYMBOLS : total]:
            crc = crc << 4 | int(tone)
        if crc != _crc16(body):
            return None
        word = _unspell(mode, length, body[2:])
        return None if word is None else (word, total * step)


def _runs(candidates: npt.NDArray[np.int64]) -> list[list[int]]:
    """Neighbouring numbers together."""
    runs: list[list[int]] = []
    for candidate in candidates.tolist():
        if runs and candidate == runs[-1][-1] + 1:
            runs[-1].append(candidate)
        else:
            runs.append([candidate])
    return runs


def decode(pcm: Pcm | bytes, sample_rate: int) -> list[str]:
    """All words of a whole recording."""
    decoder = Decoder(sample_rate)
    heard = decoder.push(pcm)
    # Silence to look into, so that a code at the very end has whole windows after it.
    heard += decoder.push(np.zeros(sample_rate // 20, np.int16))
    return [word.word for word in heard]
