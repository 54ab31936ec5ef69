"""Which language the messages come in: the one that was chosen, else the one that the caller speaks."""

from __future__ import annotations

from collections.abc import Iterable

from worker.recovery.phrases import base_language, languages


class SpokenLanguage:
    """Pure. Only languages that messages are shipped in are taken from plugins and recognisers (`multi` is none)."""

    def __init__(self) -> None:
        self._detects = False
        self._last = ""

    def choose(self, given: Iterable[str], plugins: Iterable[object]) -> str:
        """The first of those given, else the first plugin's own, else "": then it is detected."""
        own = [str(getattr(getattr(plugin, "_opts", None), "language", None) or "") for plugin in plugins]
        known = [language for language in own if base_language(language) in languages()]
        chosen = next(filter(None, [*given, *known]), "")
        self._detects = not chosen
        return chosen

    def heard(self, language: str) -> str:
        """A recogniser says that these words were in `language`. Twice in a row is believed; else ""."""
        before, self._last = self._last, base_language(language)
        return before if self._detects and before == self._last and before in languages() else ""
