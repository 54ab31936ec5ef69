"""Joins a cut-off answer and its continuation so that no word is heard twice. Pure text in, text out.

A model asked to continue may go on from there, repeat the last few words, or start all over. The
continuation's first words are held until it is clear which, by comparing them with the end (or the beginning)
of what was already said. Words are compared without case and punctuation; in scripts without spaces each
character is a word.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# From Thai on, but for Korean: scripts whose words are not set apart by spaces.
_SOLID: Final = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\ua95f\ua980-\uabff\uf900-\ufaff"
_TOKEN: Final = re.compile(rf"[{_SOLID}]|[^\s{_SOLID}]+")
_SOLID_CHAR: Final = re.compile(rf"[{_SOLID}]")
_CLINGS: Final = ".,;:!?)]}\u2026%'\u2019\u201d\""
# "don't", "twenty-one", "ann@example", "and/or": more of the word comes after these. (Dashes are no ends anyway.)
_INNER: Final = "'\u2019@#&*/\\"
_JOINS: Final = frozenset("@./")
# Closing where a word is before it.
_OPENING: Final = '"\u00bf\u00a1'

# A restart in other words after this many equal ones is still a restart: what was heard is not said again.
_PARTIAL_MATCH: Final = 4
_SENTENCE_END: Final = re.compile(r"[.!?\u2026][\"'\u2019\u201d)\]]*(?=\s|$)|[\u3002\uff01\uff1f]")
_WHOLE: Final = re.compile(r"[.!?\u2026\u3002\uff01\uff1f\u0964\u061f][\"'\u2019\u201d\u00bb)\]*]*\s*\Z")
# One equal character says nothing in a script without spaces.
_SOLID_MATCH: Final = 4


def split_open(text: str) -> tuple[str, str]:
    """The text up to its last finished word, and the word (or part of one) after that.

    Spaces, punctuation that ends a word, and characters of scripts without spaces finish it.
    """
    start = len(text)
    while start > 0 and not text[start - 1].isspace() and not _SOLID_CHAR.match(text[start - 1]):
        start -= 1
    return (text, "") if _finished(text[start:]) else (text[:start], text[start:])


def _finished(word: str) -> bool:
    if not word:
        return True
    last = word[-1]
    # Letters are not all that words are made of: the marks of Hindi, the joiners of Persian.
    if last in _INNER or unicodedata.category(last) not in {"Po", "Pe", "Pf"}:
        return False
    if last in ".,:" and (word[-2:-1].isdigit() or not _JOINS.isdisjoint(word[:-1])):
        return False  # "3." of "3.50", "ann@example." of "ann@example.com"
    return last not in _OPENING or any(char.isalnum() for char in word)


def ends_sentence(text: str) -> bool:
    """Whether the text may end here."""
    return _WHOLE.search(text) is not None


class Seam:
    """Takes the continuation as it streams in and gives back what is new in it.

    said: what was forwarded so far. open_word: its last word may be unfinished.
    """

    __slots__ = ("_buffer", "_decided", "_forwarded", "_open_word", "_restart", "_said", "_words")

    def __init__(self, said: str, *, open_word: bool = False) -> None:
        self._said = said
        self._words = [_bare(word) for word in _TOKEN.findall(said)]
        # "If you want a repair" after "If you want a refund, press one." is the next sentence, no restart: one that
        # is repeats at least the first sentence. When in doubt a word is better said again than lost.
        first = _SENTENCE_END.search(said)
        self._restart = max(_PARTIAL_MATCH, len(_TOKEN.findall(said[: first.end()])) if first else 0)
        self._open_word = open_word
        self._buffer = ""
        self._decided = not self._words
        self._forwarded = bool(self._decided)

    def push(self, text: str) -> str:
        """More of the continuation; the text that may go out now (maybe none yet)."""
        if self._decided:
            return self._joined(text)
        self._buffer += text
        return self._decide(final=False)

    def end(self) -> str:
        """The continuation is over; what was still held."""
        return "" if self._decided else self._decide(final=True)

    def _decide(self, *, final: bool) -> str:
        tokens = list(_TOKEN.finditer(self._buffer))
        whole = len(tokens)
        growing = ""
        if tokens and not final and tokens[-1].end() == len(self._buffer):
            whole -= 1
            begun = tokens[-1].group()
            growing = _bare(begun) if any(map(_letter, begun)) else ""  # the beginning of any word
        words = [_bare(token.group()) for token in tokens[:whole]]
        overlap, partial, waiting = self._compare(words, growing)
        if waiting and not final:
            return ""
        self._decided = True
        count = overlap or (partial if partial >= self._restart else 0)
        if count and not self._convincing(words[:count]):
            count = 0
        if final and not words:
            return ""
        if count == 0:
            return self._joined(self._glued(tokens[0], 0) if tokens else self._buffer)
        last = tokens[count - 1]
        if overlap and words[count - 1] != self._words[-1]:
            return self._joined(self._glued(last, last.start()))
        rest = self._buffer[last.end() :]
        tail, said = _trailing(last.group()), _trailing(self._said.rstrip())
        if overlap and tail.startswith(said):
            rest = tail[len(said) :] + rest
        return self._joined(rest)

    def _compare(self, words: list[str], growing: str) -> tuple[int, int, bool]:
        """Longest overlap with the end of what was said, match with its beginning, and whether to wait for more."""
        said = self._words
        overlap = partial = 0
        waiting = False
        for start in range(len(said)):
            length = 0
            while length < len(words) and start + length < len(said):
                if words[length] != said[start + length] and not (
                    length and self._completes(words[length], start + length)
                ):
                    break
                length += 1
            if start + length == len(said):
                overlap = max(overlap, length)
                continue
            if length == len(words) and (
                said[start + length].startswith(growing) or self._completes(growing, start + length)
            ):
                waiting = True
            if start == 0:
                partial = length  # a restart: elsewhere equal words are a sentence built alike
        if not words and not growing:
            waiting = True
        return overlap, partial, waiting

    def _completes(self, word: str, at: int) -> bool:
        """Whether it is the whole of the last word, which was said in part."""
        return self._open_word and at == len(self._words) - 1 and word.startswith(self._words[at])

    def _convincing(self, words: list[str]) -> bool:
        """Whether equal words mean a repetition: "five five" and a single character may be meant."""
        if all(len(word) == 1 and _SOLID_CHAR.match(word) for word in words):
            return len(words) >= min(_SOLID_MATCH, len(self._words))
        return len(words) > 1 or not any(c.isdigit() for c in words[0])

    def _glued(self, word: re.Match[str], otherwise: int) -> str:
        """The buffer from the rest of a word on whose beginning was said; from `otherwise` on where it is another."""
        begun, first = split_open(self._said)[1], word.group()
        # One letter may be a word of its own ("I", "a"): only the same letter begins the same word.
        alike = first.startswith(begun) or (
            (otherwise > 0 or len(begun) >= 2) and first.casefold().startswith(begun.casefold())
        )
        if not self._open_word or not alike or len(first) <= len(begun):
            return self._buffer[otherwise:]
        self._forwarded = True  # no space: it is the rest of the word
        return self._buffer[word.start() + len(begun) :]

    def _joined(self, text: str) -> str:
        """The text with just one space between it and what was said."""
        if self._forwarded or not text:
            return text
        if not text.strip():
            return ""
        self._forwarded = True
        if self._said[-1:].isspace():
            return text.lstrip()
        solid = _SOLID_CHAR.match(self._said[-1:]) or _SOLID_CHAR.match(text[0])
        if text[0].isspace() or text[0] in _CLINGS or solid:
            return text
        return f" {text}"


def _letter(char: str) -> bool:
    # Marks too: "\u0915\u0940" and "\u0915\u0947" are two words of Hindi.
    return char.isalnum() or unicodedata.category(char)[0] == "M"


def _trailing(word: str) -> str:
    """The punctuation after a word."""
    end = len(word)
    while end > 0 and not _letter(word[end - 1]):
        end -= 1
    return word[end:]


def _bare(word: str) -> str:
    inner = word[: len(word) - len(_trailing(word))]
    inner = inner[len(_trailing(inner[::-1])) :]
    return inner.casefold() or word
