"""The text of one spoken segment, and where in it the voice is. Pure.

Positions are character offsets into all text pushed so far. Times never get in here.
"""

from __future__ import annotations

_WINDOW = 80
"""How far ahead a timed word is looked for: about two lines, so that a repeated word is not found too late."""

_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f", ":", ";")  # also the full-width ones


def has_words(text: str) -> bool:
    """Whether there is anything to say: digits or letters of any script."""
    return any(char.isalnum() for char in text)


class Script:
    """Text as it comes from the language model. `told_to`: how much of it was given on as transcript."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self.told_to = 0

    def push(self, text: str) -> None:
        """More text."""
        self.text += text

    def rest(self, position: int) -> str:
        """What is still to be said."""
        return self.text[position:]

    def words_left(self, position: int, end: int | None = None) -> int:
        """How many words are between two positions."""
        return sum(1 for word in self.text[position:end].split() if has_words(word))

    def after(self, position: int, piece: str) -> tuple[int, bool]:
        """Where the text goes on after `piece` was said, and whether it was found as written.

        A piece that is not there as written (numbers and signs that a voice spells out) stands for one word each.
        Punctuation that clings to a word belongs to it.
        """
        wanted = piece.strip()
        if not wanted:
            return position, True
        found = self.text.find(wanted, position, position + _WINDOW + len(wanted))
        if found >= 0 and not has_words(self.text[position:found]):
            return self._cling(found + len(wanted)), True
        if found >= 0 and self._starts_word(found) and self.words_left(position, found) <= 3:
            return self._cling(found + len(wanted)), False
        for _ in wanted.split():
            position = self._skip_word(position)
        return position, False

    def before(self, position: int) -> int:
        """`position` without the blanks after it."""
        while position < len(self.text) and self.text[position].isspace():
            position += 1
        return position

    def ends_sentence(self, position: int) -> bool:
        """Whether a sentence has just ended before `position`."""
        return self.text[:position].rstrip().endswith(_ENDS)

    def _cling(self, position: int) -> int:
        while position < len(self.text):
            char = self.text[position]
            if char.isspace() or char.isalnum():
                break
            position += 1
        return position

    def _starts_word(self, position: int) -> bool:
        return position == 0 or not self.text[position - 1].isalnum()

    def _skip_word(self, position: int) -> int:
        position = self.before(position)
        while position < len(self.text) and not self.text[position].isspace():
            position += 1
        return position
