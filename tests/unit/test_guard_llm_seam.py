"""Where a cut answer and its continuation meet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.agents import llm

from worker.guard.llm_relay import Relay, Said
from worker.guard.seam import Seam, split_open

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(60)]

# "in mi-khaham beravam", with a joiner within its second word.
PERSIAN = "\u0627\u06cc\u0646 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0631\u0648\u0645"


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
        # What is said again comes in pieces: a bracket or an asterisk is the beginning of a word.
        ("euros (or ", ["euros", " (", "or $4.20)"], "euros (or $4.20)"),
        ("so **very good** at", ["**", "very", " good** at", " it"], "so **very good** at it"),
        ("(or today)", ["(or today). Bye"], "(or today). Bye"),
        # A restart that ends early brings nothing new.
        ("One two. Three four five", ["One two. Three four"], "One two. Three four five"),
        # Korean has spaces between its words.
        ("안녕하세요 고객님", ["무엇을 도와"], "안녕하세요 고객님 무엇을 도와"),
        ("안녕하세요 고객님", ["고객님 무엇을"], "안녕하세요 고객님 무엇을"),
        # "of" and "that" differ in a mark.
        ("उस की", ["कि वह"], "उस की कि वह"),
        ("यह नमस्ते", ["नमस्ते जी"], "यह नमस्ते जी"),
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
    assert joined("T", ["Telephone", " you"], open_word=True) == "Telephone you"
    assert joined("I", ["imagine", " so"], open_word=True) == "I imagine so"


@pytest.mark.parametrize(
    "pieces",
    [
        ["Hello! I can help you"],
        ["Hello!", " I", " can", " help", " you"],
        ["I can", " he", "lp", " you"],
        ["help", " you"],
    ],
)
def test_a_first_piece_of_many_words_may_end_in_part_of_one(pieces: list[str]) -> None:
    assert joined("Hello! I can hel", pieces, open_word=True) == "Hello! I can help you"


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
        ("日本AI", "AI"),
        ("das sind 3.", "3."),
        ("das sind 3.5", "3.5"),
        ("at 10:", "10:"),
        ("by 2023 it", "it"),
        ("it costs $", "$"),
        ("ann@exam", "ann@exam"),
        ("ann@example.", "ann@example."),
        ("I don'", "don'"),
        ('he said "', '"'),
        ('he said "yes"', ""),
        ("(or so)", ""),
        ("so 50%", ""),
        ("very **im", "**im"),
        ("यह नमस्", "नमस्"),
        ("यह नमस्क", "नमस्क"),
        ("वह गया।", ""),
        (PERSIAN[:7], PERSIAN[4:7]),
        ("고객님 무엇", "무엇"),
    ],
)
def test_the_unfinished_word(text: str, held: str) -> None:
    assert split_open(text)[1] == held


@pytest.mark.parametrize(
    ("tokens", "more", "whole"),
    [
        (["Das", " sind", " 3", "."], "3.50 Euro", "Das sind 3.50 Euro"),
        (["It", " costs", " $"], "$5 today", "It costs $5 today"),
        (["Write", " to", " ann", "@", "exam"], "ann@example.com now", "Write to ann@example.com now"),
        (["यह", " नमस", "्", "क"], "नमस्कार जी", "यह नमस्कार जी"),
        ([PERSIAN[:7], PERSIAN[7:9]], PERSIAN[4:], PERSIAN),
        (["안녕", " 고객님", " 무"], "무엇을 도와", "안녕 고객님 무엇을 도와"),
        (["Sure, t"], "the price", "Sure, the price"),
    ],
)
def test_a_model_cut_off_within_a_word_is_continued_with_the_whole_word(
    tokens: list[str], more: str, whole: str
) -> None:
    heard: list[str] = []
    said = Said()

    def forward(chunk: llm.ChatChunk) -> None:
        heard.append((chunk.delta.content or "") if chunk.delta else "")

    first = Relay(said, forward)
    for token in tokens:
        first.take(llm.ChatChunk(id="1", delta=llm.ChoiceDelta(role="assistant", content=token)))
    second = Relay(said, forward)
    second.take(llm.ChatChunk(id="2", delta=llm.ChoiceDelta(role="assistant", content=more)))
    second.finish()
    assert "".join(heard) == whole
