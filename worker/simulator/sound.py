"""Spoken text, and audio files in and out."""

from __future__ import annotations

import hashlib
import io
import struct
import wave
from typing import Any, cast

import numpy as np

from worker.simulator.wordcode import MAX_WORD_BYTES, Pcm, speak

__all__ = ["FORMATS", "AudioError", "encode_audio", "read_wav", "sayable", "speak_text", "wav_header"]

FORMATS = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
}


class AudioError(ValueError):
    """The audio cannot be read."""


def sayable(text: str) -> list[str]:
    """The words of a text, each short enough for a code."""
    return [word.encode()[:MAX_WORD_BYTES].decode(errors="ignore") for word in text.split()]


def carrier_hz(voice: str) -> float:
    """The pitch of a voice: every voice has its own."""
    return 110.0 + hashlib.sha256(voice.encode()).digest()[0] / 2


def speak_text(
    text: str, sample_rate: int, voice: str, word_s: float
) -> tuple[Pcm, list[str], list[tuple[float, float]]]:
    """Sound of a text, its words, and their start and end in seconds."""
    words = sayable(text)
    pcm, times = speak(words, sample_rate, carrier_hz=carrier_hz(voice), min_word_s=word_s)
    return pcm, words, times


def wav_header(sample_rate: int) -> bytes:
    """The head of a streamed mono WAV, whose length is not known yet."""
    head = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        0xFFFFFFFF,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        sample_rate,
        sample_rate * 2,
        2,
        16,
    )
    return head + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def read_wav(data: bytes) -> tuple[Pcm, int]:
    """Samples (the first channel, as 16 bits) and sample rate of a WAV file; AudioError when it is none."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            raw, width, channels, rate = (
                file.readframes(file.getnframes()),
                file.getsampwidth(),
                file.getnchannels(),
                file.getframerate(),
            )
    except (wave.Error, EOFError, struct.error) as error:
        raise AudioError("not a WAV file") from error
    if width == 2:
        pcm = np.frombuffer(raw[: len(raw) // 2 * 2], np.int16)
    elif width == 1:
        pcm = ((np.frombuffer(raw, np.uint8).astype(np.int16) - 128) * 256).astype(np.int16)
    else:
        raise AudioError(f"a WAV file of {8 * width} bits a sample is not supported")
    return pcm[::channels], rate


def encode_audio(pcm: Pcm, sample_rate: int, kind: str) -> bytes:
    """A whole recording as mp3, flac or opus."""
    import av

    codec, container = {"mp3": ("libmp3lame", "mp3"), "flac": ("flac", "flac"), "opus": ("libopus", "ogg")}[
        kind
    ]
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = cast("Any", file).add_stream(codec, rate=sample_rate)
        stream.layout = "mono"
        if kind != "flac":
            stream.bit_rate = 96_000
        step = sample_rate // 50
        for start in range(0, len(pcm), step):
            frame = av.AudioFrame.from_ndarray(
                pcm[start : start + step].reshape(1, -1), format="s16", layout="mono"
            )
            frame.sample_rate, frame.pts = sample_rate, start
            cast("Any", file).mux(stream.encode(frame))
        cast("Any", file).mux(stream.encode(None))
    return target.getvalue()
