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


@pytest.mark.parametrize(
    ("said", "more"),
    [
        ("Thanks for calling. If you want a refund, press one. ", "If you want a repair, press three. "),
        ("If you want a refund, press one. ", "If you want a repair, press three. "),
        (
            "If you want a refund, press one. If you want an exchange, press two. ",
            "If you want a repair, press three. ",
        ),
    ],
)
def test_sentences_built_alike_are_not_a_restart(said: str, more: str) -> None:
    assert joined(said, [more]) == said + more
    assert joined(said, [f"{word} " for word in more.split()]).split() == (said + more).split()


@given(
    stem=st.integers(1, 8), ends=st.lists(st.integers(10, 50), min_size=2, max_size=5, unique=True),
    cut=st.integers(1, 4),
)  # fmt: skip
def test_no_word_of_a_list_built_alike_is_lost(stem: int, ends: list[int], cut: int) -> None:
    sentences = [" ".join([*WORDS[:stem], WORDS[end], WORDS[end + 5], "here."]) for end in ends]
    cut = min(cut, len(sentences) - 1)
    whole = " ".join(sentences)
    said, more = " ".join(sentences[:cut]) + " ", " ".join(sentences[cut:])
    assert joined(said, [more]) == whole
    assert joined(said, [whole]) == whole, "a restart is heard once"


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
