"""Makes the callers' recorded sentences: espeak-ng speech with a word code mixed in for every word.

``python -m worker.simulator.speech`` writes the WAV files (16 kHz, mono, 8 bits) and ``sentences.json`` beside
itself. It needs espeak-ng; the files are checked in, so nothing else does.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np

from worker.simulator.sound import read_wav
from worker.simulator.wordcode import Pcm, decode, mix

SAMPLE_RATE = 16_000
VOICES = ("en-us+f3", "en-us+m3", "en-gb+f2", "en-gb+m1")
SENTENCES = (
    "Could you tell me about my order from yesterday?",
    "I would like to book a table for four people.",
    "What is the weather going to be like tomorrow?",
    "Please tell me when the next train is leaving.",
    "How much does it cost to send a letter?",
    "My internet connection is not working this morning.",
    "Can you help me to change my delivery address?",
    "I am calling about the invoice of last month.",
    "Where can I find a good place for lunch?",
    "Is it possible to return the shoes I bought?",
    "Thank you, that was very helpful for me.",
    "Please explain how the new plan really works.",
)


def recorded(text: str, voice: str) -> Pcm:
    """Speech at 16 kHz without silence at its ends."""
    program = shutil.which("espeak-ng")
    if program is None:
        print("espeak-ng is needed to make speech; install it and try again", file=sys.stderr)
        raise SystemExit(1)
    made = subprocess.run(
        [program, "-v", voice, "-s", "165", "--stdout", text], capture_output=True, check=True
    )
    head = bytearray(made.stdout)
    # espeak-ng streams to stdout with a length of its own invention.
    head[4:8] = (len(head) - 8).to_bytes(4, "little")
    head[40:44] = (len(head) - 44).to_bytes(4, "little")
    pcm, rate = read_wav(bytes(head))
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    pieces = [
        piece.to_ndarray().reshape(-1) for piece in [*resampler.resample(frame), *resampler.resample(None)]
    ]
    speech: Pcm = np.concatenate(pieces).astype(np.int16)
    loud = np.flatnonzero(np.abs(speech) > 300)
    return speech[loud[0] : loud[-1] + 1]


def as_wav(pcm: Pcm) -> bytes:
    """A WAV of 8 bits: half the size, and quiet enough for a telephone."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(
            ((pcm.astype(np.int32) + 32768 + 128) // 256).clip(0, 255).astype(np.uint8).tobytes()
        )
    return target.getvalue()


def main() -> None:
    """Writes all files."""
    folder = Path(__file__).parent
    index: list[dict[str, str]] = []
    for number, text in enumerate(SENTENCES):
        pcm, _ = mix(text.split(), recorded(text, VOICES[number % len(VOICES)]), SAMPLE_RATE)
        data = as_wav(pcm)
        if decode(*read_wav(data)) != text.split():
            raise SystemExit(f"the words of sentence {number} cannot be read back")
        name = f"sentence-{number:02d}.wav"
        (folder / name).write_bytes(data)
        index.append({"file": name, "text": text})
        print(f"{name}  {len(pcm) / SAMPLE_RATE:.2f} s  {text}")
    (folder / "sentences.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
