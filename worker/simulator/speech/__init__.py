"""Recorded sentences for callers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from worker.simulator.sound import read_wav
from worker.simulator.wordcode import Pcm

__all__ = ["Sentence", "sentences"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One recording: its words, and mono PCM16 at 16 kHz."""

    text: str
    pcm: Pcm


@lru_cache(maxsize=1)
def sentences() -> tuple[Sentence, ...]:
    """All recordings, always in the same order."""
    folder = resources.files(__name__)
    index = json.loads((folder / "sentences.json").read_text())
    return tuple(
        Sentence(entry["text"], read_wav((folder / entry["file"]).read_bytes())[0]) for entry in index
    )
