"""What of a voice's audio may go out, and where the next voice begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.guard.tts_text import Script, has_words
from worker.guard.tts_track import GRACE_S, MAX_HELD_S, Timed, Track

RATE = 1000
SENTENCE = "One two three, four five six. Seven eight nine ten!"


def script(text: str = SENTENCE) -> Script:
    made = Script()
    made.push(text)
    made.ended = True
    return made


def sound(seconds: float, level: int = 1000) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.full(round(seconds * RATE), level, np.int16)


def word(text: str, start_s: float, end_s: float | None) -> Timed:
    return Timed(text, start_s, end_s)


def length(audio: np.ndarray[tuple[int], np.dtype[np.int16]] | None) -> float:
    return 0.0 if audio is None else len(audio) / RATE


def test_audio_waits_for_the_end_of_its_word() -> None:
    track = Track(script(), 0, RATE, expects_times=True)
    track.hear(sound(0.7), [word("One", 0, 0.3), word("two", 0.3, 0.6), word("three,", 0.6, 0.9)], 10.0)
    released = track.release(10.0)
    assert length(released.audio) == pytest.approx(0.6)
    assert [piece.text for piece in released.pieces] == ["One", "two"]
    assert SENTENCE[track.said_to :].lstrip() == "three, four five six. Seven eight nine ten!"


def test_first_audio_waits_a_moment_for_the_first_time_and_no_longer() -> None:
    track = Track(script(), 0, RATE, expects_times=True)
    track.hear(sound(0.2), [], 10.0)
    assert track.release(10.0).audio is None
    assert track.wait_s(10.1) == pytest.approx(GRACE_S - 0.1)
    assert length(track.release(10.0 + GRACE_S).audio) == pytest.approx(0.2)


def test_late_times_hold_audio_up_to_a_limit() -> None:
    track = Track(script(), 0, RATE, expects_times=True)
    track.hear(sound(0.3), [word("One", 0, 0.3)], 10.0)
    track.release(10.0)
    track.hear(sound(MAX_HELD_S - 0.01), [], 10.1)
    assert track.release(10.1).audio is None
    track.hear(sound(0.1), [], 10.2)
    assert length(track.release(10.2).audio) == pytest.approx(MAX_HELD_S + 0.09)


def test_silence_is_held_until_something_is_heard() -> None:
    track = Track(script(), 0, RATE)
    track.hear(sound(0.5, level=0), [], 10.0)
    assert track.release(10.0).audio is None
    assert not track.audible
    track.hear(sound(0.1), [], 10.0)
    assert length(track.release(10.0).audio) == pytest.approx(0.6)


def test_without_times_the_next_voice_begins_with_the_sentence() -> None:
    track = Track(script(), 0, RATE)
    track.sentence("One two three, four five six.")
    track.hear(sound(1.0), [], 10.0)
    assert length(track.release(10.0).audio) == pytest.approx(1.0)
    assert track.said_to == 0
    track.sentence("Seven eight nine ten!")
    assert SENTENCE[track.said_to :] == "Seven eight nine ten!"


def test_a_sentence_that_is_silence_is_held_and_left_to_the_next_voice() -> None:
    track = Track(script(), 0, RATE)
    for text, level in (("One two three, four five six.", 1000), ("Seven eight nine ten!", 0)):
        track.sentence(text)
        track.hear(sound(1.0, level), [word(text, 0, None)], 10.0)
    assert length(track.release(10.0).audio) == pytest.approx(1.0)
    assert not track.muted, "sound may still come"
    assert track.end_sentence()
    assert SENTENCE[track.said_to :] == "Seven eight nine ten!"


def test_a_pause_that_was_asked_for_is_no_fault() -> None:
    track = Track(script('One. <break time="1s"/>'), 0, RATE)
    for text, level in (("One.", 1000), ('<break time="1s"/>', 0)):
        track.sentence(text)
        track.hear(sound(1.0, level), [word(text, 0, None)], 10.0)
    assert not track.end_sentence()
    assert length(track.release(10.0, ended=True).audio) == pytest.approx(2.0)


def test_what_was_told_once_is_not_told_again() -> None:
    text = script()
    first = Track(text, 0, RATE)
    first.sentence("One two three, four five six.")
    first.hear(sound(0.5), [word("One two three, four five six.", 0, None)], 10.0)
    assert len(first.release(10.0).pieces) == 1
    second = Track(text, first.said_to, RATE, expects_times=True)
    second.hear(sound(0.6), [word("One", 0, 0.3), word("two", 0.3, 0.6)], 11.0)
    assert second.release(11.0).pieces == ()


def test_an_end_with_words_left_and_no_room_for_them_is_a_cut() -> None:
    track = Track(script(), 0, RATE, expects_times=True)
    track.hear(sound(0.35), [word("One", 0, 0.3)], 10.0)
    assert track.cut_short()
    track.hear(sound(3.0), [], 10.0)
    assert not track.cut_short(), "the audio may well hold the words whose times were not sent"


@given(st.integers(0, 10), st.floats(0.0, 0.29))
def test_whatever_was_let_out_is_exactly_what_the_next_voice_leaves_out(count: int, more_s: float) -> None:
    words = SENTENCE.split()
    track = Track(script(), 0, RATE, expects_times=True)
    times = [word(w, i * 0.3, (i + 1) * 0.3) for i, w in enumerate(words[: count + 1])]
    track.hear(sound(count * 0.3 + more_s), times, 10.0)
    out_s = length(track.release(10.0).audio)
    said = round(out_s / 0.3)
    assert out_s == pytest.approx(said * 0.3, abs=0.002), "audio ended within a word"
    assert SENTENCE[track.said_to :].split() == words[said:]


@given(st.lists(st.sampled_from(["alpha", "beta", "a", "be", "it's", "x-ray", "7"]), min_size=1, max_size=12))
def test_words_are_found_in_their_order(words: list[str]) -> None:
    text = script(" ".join(words) + ".")
    position = 0
    for number, one in enumerate(words):
        position, as_written = text.after(position, one)
        assert as_written
        assert text.words_left(position) == len(words) - number - 1


def test_a_spelled_out_number_stands_for_one_word() -> None:
    text = script("It costs $5 today, friend.")
    position, found = text.after(0, "It")
    position, found = text.after(position, "costs")
    position, found = text.after(position, "five-dollars")
    assert not found
    position, found = text.after(position, "today,")
    assert found
    assert text.rest(position).strip() == "friend."


@pytest.mark.parametrize(
    ("text", "expected"),
    [("...", False), ("", False), ("\u2026!", False), ("a", True), ("7", True), ("\u4f60", True)],
)
def test_what_can_be_said(text: str, expected: bool) -> None:
    assert has_words(text) is expected
