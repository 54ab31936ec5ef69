"""Sound files for when the voice is gone: read whole and checked when the session is set up, never in the call."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import av
import av.error
import numpy as np
from livekit import rtc

SUFFIXES: Final = (".wav", ".ogg", ".oga", ".opus", ".mp3", ".flac")
MAX_BYTES: Final = 20 * 1024 * 1024
MAX_SECONDS: Final = 60.0
MIN_SECONDS: Final = 0.1
SAMPLE_RATE: Final = 24_000
FRAME_S: Final = 0.05
# -66 dBFS: anything that a person could hear is above it.
_AUDIBLE: Final = 16


class AudioFileError(ValueError):
    """A sound file cannot be used. The text is one line that names the file and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Sound with the words in it (for the transcript; "" when they are not known)."""

    text: str
    frames: tuple[rtc.AudioFrame, ...]

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return sum(frame.samples_per_channel / frame.sample_rate for frame in self.frames)

    async def play(self) -> AsyncIterator[rtc.AudioFrame]:
        """The frames, for `session.say(audio=…)`. Each call starts from the beginning."""
        for frame in self.frames:
            yield frame


def load_clip(path: str | Path, text: str = "", *, sample_rate: int = SAMPLE_RATE) -> Clip:
    """Read a sound file as mono 16-bit at `sample_rate` Hz. Raises `AudioFileError`."""
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError:
        raise AudioFileError(f"{file}: there is no such file") from None
    if not file.is_file():
        raise AudioFileError(f"{file}: is not a file")
    if file.suffix.lower() not in SUFFIXES:
        raise AudioFileError(f"{file}: must be one of {', '.join(SUFFIXES)}")
    if size == 0:
        raise AudioFileError(f"{file}: is empty")
    if size > MAX_BYTES:
        raise AudioFileError(f"{file}: is larger than {MAX_BYTES // 1024 // 1024} MB")
    try:
        data = file.read_bytes()
    except OSError:
        raise AudioFileError(f"{file}: cannot be read; look at its permissions") from None
    return clip_of(data, text, name=str(file), sample_rate=sample_rate)


def clip_of(data: bytes, text: str = "", *, name: str = "sound", sample_rate: int = SAMPLE_RATE) -> Clip:
    """The same for a file's bytes."""
    try:
        pcm = _decode(data, sample_rate)
    except (av.error.FFmpegError, ValueError, IndexError, OSError):
        raise AudioFileError(f"{name}: holds no sound that can be read") from None
    seconds = len(pcm) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioFileError(f"{name}: holds no sound (it is {seconds:.2f} s long)")
    if seconds > MAX_SECONDS:
        raise AudioFileError(f"{name}: is longer than {MAX_SECONDS:.0f} s")
    if int(np.abs(pcm.astype(np.int32)).max()) < _AUDIBLE:
        raise AudioFileError(f"{name}: is silent all the way through")
    return Clip(text, frames_of(pcm.tobytes(), sample_rate))


def frames_of(pcm: bytes, sample_rate: int) -> tuple[rtc.AudioFrame, ...]:
    """Mono 16-bit sound as frames of 50 ms."""
    step = round(sample_rate * FRAME_S) * 2
    return tuple(
        rtc.AudioFrame(piece, sample_rate, 1, len(piece) // 2)
        for start in range(0, len(pcm) - len(pcm) % 2, step)
        if (piece := pcm[start : start + step])
    )


def pcm_of(frames: Sequence[rtc.AudioFrame]) -> bytes:
    """The samples of mono frames, one after the other."""
    return b"".join(bytes(frame.data) for frame in frames)


def write_file(path: str | Path, pcm: bytes, sample_rate: int) -> None:
    """Write mono 16-bit sound as the file's suffix says (wav, ogg, opus, mp3, flac). Raises `AudioFileError`."""
    file = Path(path)
    codecs = {
        ".wav": ("wav", "pcm_s16le"),
        ".ogg": ("ogg", "libopus"),
        ".oga": ("ogg", "libopus"),
        ".opus": ("ogg", "libopus"),
        ".mp3": ("mp3", "libmp3lame"),
        ".flac": ("flac", "flac"),
    }
    if file.suffix.lower() not in codecs:
        raise AudioFileError(f"{file}: must be one of {', '.join(SUFFIXES)}")
    container, codec = codecs[file.suffix.lower()]
    rate = 24_000 if codec == "libopus" else sample_rate
    try:
        with av.open(str(file), "w", format=container) as output:
            stream = cast("Any", output).add_stream(codec, rate=rate)
            stream.layout = "mono"
            if codec == "libopus":
                stream.bit_rate = 24_000
            resampler = av.AudioResampler(
                format=stream.codec_context.format,
                layout="mono",
                rate=rate,
                frame_size=stream.frame_size or 0,
            )
            samples = np.frombuffer(pcm, np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = sample_rate
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                cast("Any", output).mux(stream.encode(piece))
            cast("Any", output).mux(stream.encode(None))
    except (OSError, av.error.FFmpegError) as exc:
        raise AudioFileError(f"{file}: cannot be written ({type(exc).__name__})") from None


def _decode(data: bytes, sample_rate: int) -> Any:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
    pieces: list[Any] = []
    limit = int(MAX_SECONDS * sample_rate) + sample_rate
    # Its types know neither which container comes out nor what is in it.
    with cast("Any", av.open(io.BytesIO(data))) as container:
        for frame in container.decode(audio=0):
            made = [each.to_ndarray().reshape(-1) for each in resampler.resample(frame)]
            pieces += made
            limit -= sum(len(piece) for piece in made)
            if limit < 0:
                break
        pieces += [made.to_ndarray().reshape(-1) for made in resampler.resample(None)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
