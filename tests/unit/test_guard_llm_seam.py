"""Where a cut answer and its continuation meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.guard.seam import Seam, split_open

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]


def joined(said: str, pieces: list[str], *, open_word: bool = False) -> str:
    seam = Seam(said, open_word=open_word)
    return said + "".join(seam.push(piece) for piece in pieces) + seam.end()


@given(
    count=st.integers(2, 40),
    cut=st.integers(1, 39),
    back=st.integers(0, 40),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    trailing=st.booleans(),
)
def test_every_word_once_however_far_back_it_starts_and_however_it_is_chunked(
    count: int, cut: int, back: int, sizes: list[int], trailing: bool
) -> None:
    words = WORDS[:count]
    cut = min(cut, count - 1)
    said = " ".join(words[:cut]) + (" " if trailing else "")
    text = " ".join(words[max(0, cut - back) :])
    pieces: list[str] = []
    at = i = 0
    while at < len(text):
        size = sizes[i % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
        i += 1
    assert joined(said, pieces).split() == words
    assert "  " not in joined(said, pieces)


@pytest.mark.parametrize(
    ("said", "pieces", "expected"),
    [
        ("one two three ", ["four", " five"], "one two three four five"),
        ("One two, three", ["one", " two", " three", " four"], "One two, three four"),
        ("The end", [", my friend"], "The end, my friend"),
        ("The end", ["end."], "The end."),
        ("all of it", ["all of it"], "all of it"),
        ("all of it", [], "all of it"),
        ("all of it", ["  "], "all of it"),
        # Numbers may be said twice.
        ("call 5", [" 5", " 6"], "call 5 5 6"),
        # A new beginning in other words: what was heard is not said again.
        ("one two three four five six", ["one two three four ", "then more"], "one two three four five six then more"),
        ("今日は天気が", ["今日は天気がいいです"], "今日は天気がいいです"),
        ("今日は天気が", ["いいです"], "今日は天気がいいです"),
    ],
)  # fmt: skip
def test_seams(said: str, pieces: list[str], expected: str) -> None:
    assert joined(said, pieces) == expected


def test_the_rest_of_an_unfinished_word_is_glued_to_it() -> None:
    assert joined("Tele", ["Telephone", " you"], open_word=True) == "Telephone you"
    assert joined("Telephone", ["Telephone", " you"], open_word=True) == "Telephone you"


def test_a_plain_continuation_is_not_held_longer_than_its_first_word() -> None:
    seam = Seam("one two three")
    assert seam.push(" fo") == " fo"
    assert seam.push("ur") == "ur"


@given(st.text(max_size=60))
def test_splitting_loses_nothing(text: str) -> None:
    ready, held = split_open(text)
    assert ready + held == text
    assert not any(c.isspace() for c in held)


@given(said=st.text(max_size=60), pieces=st.lists(st.text(max_size=12), max_size=12), open_word=st.booleans())
def test_any_text_passes_without_raising_and_nothing_is_invented(
    said: str, pieces: list[str], open_word: bool
) -> None:
    seam = Seam(said, open_word=open_word)
    out = "".join(seam.push(piece) for piece in pieces) + seam.end()
    assert len(out) <= len("".join(pieces)) + 1


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("I will tele", "tele"),
        ("Done.", ""),
        ("don't", "don't"),
        ("twenty-one", "twenty-one"),
        ("a ", ""),
        ("日本", ""),
    ],
)
def test_the_unfinished_word(text: str, held: str) -> None:
    assert split_open(text)[1] == held
