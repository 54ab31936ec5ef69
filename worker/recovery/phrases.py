"""What is said to callers: per role and kind, per language, in turn; the user's own words go first.

The shipped ones are in `messages/<language>.json`. Keys: a role (`llm`, `tts`, `stt`, `realtime`), `role.kind`
(also written as a pair: `messages["llm", "rate_limit"]`), `final`, and in its place `final.transfer` and `final.stay`
where the call goes on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from importlib import resources
from typing import Final, cast

from supervisor.wire.vocabulary import FaultKind, Role

FINAL: Final = "final"
DEFAULT_LANGUAGE: Final = "en"
_ROLES: Final = frozenset(role.value for role in Role)
_KINDS: Final = frozenset(kind.value for kind in FaultKind)
_FINALS: Final = frozenset({"final", "final.transfer", "final.stay"})
_ALIASES: Final = {"cmn": "zh", "yue": "zh", "nb": "no"}

Key = str | tuple[str, str]


@lru_cache(maxsize=1)
def languages() -> tuple[str, ...]:
    """The languages that messages are shipped in."""
    folder = resources.files("worker.recovery") / "messages"
    return tuple(sorted(f.name.removesuffix(".json") for f in folder.iterdir() if f.name.endswith(".json")))


@lru_cache(maxsize=32)
def shipped(language: str) -> dict[str, tuple[str, ...]]:
    """The shipped messages of a language. Raises KeyError for one that is not shipped."""
    if language not in languages():
        raise KeyError(language)
    text = (resources.files("worker.recovery") / "messages" / f"{language}.json").read_text(encoding="utf-8")
    found: dict[str, list[str]] = json.loads(text)
    return {key: tuple(lines) for key, lines in found.items()}


def base_language(language: str) -> str:
    """`en` for `en-US`, `zh` for `cmn-Hans-CN`."""
    base = language.strip().lower().replace("_", "-").split("-", 1)[0]
    return _ALIASES.get(base, base)


class FallbackMessages(MutableMapping[Key, list[str]]):
    """Messages by role and kind. Setting one replaces the shipped ones in every language.

    Raises ValueError for a list that is empty or holds anything but non-empty strings, KeyError for a key that is
    neither a role, `role.kind` nor a final one.
    """

    def __init__(self, language: str = DEFAULT_LANGUAGE) -> None:
        self._language = base_language(language) or DEFAULT_LANGUAGE
        self._own: dict[str, list[str]] = {}
        # Handed out, so that what a user appends to such a list is said too.
        self._shown: dict[tuple[str, str], list[str]] = {}
        self._turn: Counter[str] = Counter()

    @property
    def language(self) -> str:
        """In use, e.g. `de`; messages come in English where the language is not shipped."""
        return self._language

    @language.setter
    def language(self, language: str) -> None:
        self._language = base_language(language) or DEFAULT_LANGUAGE

    @property
    def spoken_language(self) -> str:
        """The language that the shipped messages are in now."""
        return self._language if self._language in languages() else DEFAULT_LANGUAGE

    def __getitem__(self, key: Key) -> list[str]:
        name = _name(key)
        if name in self._own:
            return self._own[name]
        lines = shipped(self.spoken_language).get(name)
        if lines is None:
            raise KeyError(name)
        return self._shown.setdefault((self.spoken_language, name), list(lines))

    def __setitem__(self, key: Key, lines: list[str]) -> None:
        self._own[_name(key)] = _checked(_name(key), lines)

    def __delitem__(self, key: Key) -> None:
        del self._own[_name(key)]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *shipped(self.spoken_language)]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def replace(self, messages: Mapping[Key, list[str]]) -> None:
        """These are the user's own now, the others the shipped ones; nothing changes when one of them is wrong."""
        if not isinstance(messages, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may set anything
            raise ValueError('fallback_messages: needs messages by role or kind, e.g. {"llm": ["Pardon?"]}')  # noqa: TRY004  # one exception for all wrong lists
        given = messages._own if isinstance(messages, FallbackMessages) else messages
        own = {_name(key): _checked(_name(key), lines) for key, lines in given.items()}
        self._own, self._shown = own, {}

    def final_keys(self, how: str) -> tuple[str, ...]:
        """Whose messages are said at last when the call then goes on as `how` (`close`, `transfer`, `stay`)."""
        key = f"{FINAL}.{how}"
        # A user who only has words of their own for `final` wants those rather than shipped ones.
        if key not in _FINALS or (FINAL in self._own and key not in self._own):
            return (FINAL,)
        return key, FINAL

    def choices(self, keys: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """The first key that has messages, and those. Falls back to the LLM's."""
        for name in (*keys, Role.LLM.value):
            given = self._own.get(name) or self._shown.get((self.spoken_language, name), ())
            own = tuple(line for line in given if isinstance(line, str) and line.strip())  # pyright: ignore[reportUnnecessaryIsInstance]  # a user may append anything
            lines = own or shipped(self.spoken_language).get(name, ())
            if lines:
                return name, lines
        return FINAL, shipped(DEFAULT_LANGUAGE)[FINAL]

    def next(self, keys: Iterable[str]) -> str:
        """The next message for the first of these keys that has any: they take turns."""
        name, lines = self.choices(keys)
        line = lines[self._turn[name] % len(lines)]
        self._turn[name] += 1
        return line


def _name(key: object) -> str:
    parts = cast("tuple[object, ...]", key) if isinstance(key, tuple) else tuple(str(key).split(".", 1))
    names = [part.value if isinstance(part, Role | FaultKind) else str(part) for part in parts]
    one = ".".join(names) in _FINALS or (len(names) == 1 and names[0] in _ROLES)
    two = len(names) == 2 and names[0] in _ROLES and names[1] in _KINDS
    if not (one or two):
        raise KeyError(f"{'.'.join(names)}: a role, a role and a kind of fault, or {FINAL!r} is needed")
    return ".".join(names)


def _checked(name: str, lines: object) -> list[str]:
    if isinstance(lines, str) or not isinstance(lines, Iterable):
        raise ValueError(f"fallback_messages[{name!r}]: a list of strings is needed")  # noqa: TRY004  # one exception for all wrong lists
    made = list(cast("Iterable[object]", lines))
    if not made:
        raise ValueError(f"fallback_messages[{name!r}]: at least one message is needed")
    good = [line for line in made if isinstance(line, str) and line.strip()]
    if len(good) != len(made):
        raise ValueError(f"fallback_messages[{name!r}]: every message must be a non-empty string")
    return good
