"""Which recorded sound is played when nothing can speak: the user's file, the own voice, or the shipped recording."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from pathlib import Path

from worker.recovery.audio import Clip, clip_of, load_clip
from worker.recovery.own_voice import OwnVoice
from worker.recovery.phrases import DEFAULT_LANGUAGE, FINAL

APOLOGY = "apology"


@lru_cache(maxsize=1)
def recordings() -> dict[str, dict[str, str]]:
    """The texts of the shipped recordings: language → apology and final."""
    return json.loads(
        (resources.files("worker.recovery") / "recordings" / "texts.json").read_text(encoding="utf-8")
    )


@lru_cache(maxsize=8)
def recording(language: str, which: str) -> Clip:
    """A shipped recording; in English where the language has none."""
    known = language if language in recordings() else DEFAULT_LANGUAGE
    data = (resources.files("worker.recovery") / "recordings" / f"{known}.{which}.ogg").read_bytes()
    return clip_of(data, recordings()[known][which], name=f"{known}.{which}.ogg")


class Sounds:
    """The recorded sounds of one session. Made when the session is set up: wrong files raise `AudioFileError` here."""

    def __init__(
        self,
        own_voice: OwnVoice,
        *,
        custom: str | Path | None = None,
        custom_final: str | Path | None = None,
        language: str = DEFAULT_LANGUAGE,
    ) -> None:
        self.own_voice = own_voice
        self.language = language
        self._custom = load_clip(custom) if custom else None
        self._custom_final = load_clip(custom_final) if custom_final else None
        for which in (APOLOGY, FINAL):
            recording(language, which)  # read now, not in the call

    def use(self, custom: str | Path) -> None:
        """Take another file of the user's. Raises `AudioFileError`."""
        self._custom = load_clip(custom)

    def clip(self, *, final: bool, texts: Iterable[str], goodbye: bool = True) -> Clip:
        """What to play; `texts` are the messages that would fit, best first. goodbye: a final one ends the call."""
        own = self._custom_final if final else self._custom
        if own is not None:
            return own
        return self.own_voice.get(texts) or recording(self.language, FINAL if final and goodbye else APOLOGY)
