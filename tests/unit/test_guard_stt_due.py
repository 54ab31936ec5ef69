"""What a recogniser owes by when, and what is kept of the caller's sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.guard.stt_due import Act, Due, Pace, Picture, Style, due
from worker.guard.stt_state import COMPLAIN_EVERY_S, Outage, Utterance
from worker.guard.stt_tape import PRE_ROLL_S, Meter, Tape

FRAME_S = 0.02


def picture(**fields: object) -> Picture:
    values: dict[str, object] = {
        "now_mono": 100.0,
        "style": Style.INTERIM,
        "speech_s": 1.0,
        "last_loud_mono": 100.0,
        "late_mono": 102.0,
        "stall_s": 3.0,
    }
    return Picture(**{**values, **fields})  # pyright: ignore[reportArgumentType] - fields by name


@pytest.mark.parametrize(
    ("fields", "act"),
    [
        ({"speech_s": 0.1, "last_loud_mono": 99.5}, Act.NOTHING),
        ({"speech_s": 0.1, "last_loud_mono": 98.0}, Act.FORGET),
        ({"speech_s": 5.0, "sure": False, "last_loud_mono": 98.0}, Act.FORGET),
        ({}, Act.BEGIN),
        ({"style": Style.FINAL}, Act.NOTHING),
        ({"style": Style.FINAL, "last_loud_mono": 99.4}, Act.BEGIN),
        ({"style": Style.REQUEST}, Act.NOTHING),
        ({"style": Style.REQUEST, "last_loud_mono": 98.0}, Act.NOTHING),
        ({"style": Style.REQUEST, "sure": False, "last_loud_mono": 98.0}, Act.FORGET),
        ({"asked": True}, Act.NOTHING),
        ({"asked": True, "late_mono": 99.9}, Act.LATE),
        ({"asked": True, "late_mono": 99.9, "speech_s": 0.3}, Act.NOTHING),
        ({"asked": True, "late_mono": 99.9, "style": Style.REQUEST}, Act.LATE),
        ({"asked": True, "begun_mono": 98.4, "style": Style.REQUEST}, Act.NOTHING),
        ({"asked": True, "begun_mono": 98.4, "style": Style.REQUEST, "others": True}, Act.LEAVE),
        ({"asked": True, "begun_mono": 98.9, "style": Style.REQUEST, "others": True}, Act.NOTHING),
        ({"asked": True, "answered": True, "last_event_mono": 99.0}, Act.NOTHING),
        ({"asked": True, "answered": True, "last_event_mono": 98.1}, Act.STALLED),
        ({"asked": True, "answered": True, "words": True, "last_event_mono": 99.1}, Act.NOTHING),
        ({"asked": True, "answered": True, "words": True, "last_event_mono": 98.9}, Act.STALLED),
        (
            {"asked": True, "answered": True, "words": True, "last_event_mono": 98.9, "style": Style.FINAL},
            Act.NOTHING,
        ),
        (
            {"asked": True, "answered": True, "words": True, "last_event_mono": 98.4, "last_loud_mono": 98.6},
            Act.NOTHING,
        ),
        (
            {"asked": True, "answered": True, "words": True, "last_event_mono": 96.0, "last_loud_mono": 96.5},
            Act.LEAVE,
        ),
        ({"asked": True, "answered": True, "last_event_mono": 96.0, "last_loud_mono": 96.5}, Act.STALLED),
        # Noise to which the service says that somebody speaks, and no more.
        ({"asked": True, "answered": True, "speech_s": 0.25, "last_event_mono": 90.0}, Act.NOTHING),
        ({"asked": True, "answered": True, "sure": False, "last_event_mono": 90.0}, Act.NOTHING),
        (
            {
                "asked": True,
                "answered": True,
                "speech_s": 0.15,
                "last_event_mono": 98.0,
                "last_loud_mono": 98.0,
            },
            Act.FORGET,
        ),
        ({"asked": True, "answered": True, "speech_s": 0.0, "last_event_mono": 10.0}, Act.NOTHING),
    ],
)
def test_what_is_owed(fields: dict[str, object], act: Act) -> None:
    assert due(picture(**fields)).act is act


def test_a_slow_recogniser_is_given_its_time() -> None:
    pace = Pace()
    speaking = {"asked": True, "answered": True, "words": True, "last_event_mono": 98.5, "pace": pace}
    assert due(picture(**speaking)).act is Act.STALLED
    pace.pauses.append(0.9)
    assert due(picture(**speaking)).act is Act.NOTHING
    waiting = speaking | {"last_event_mono": 98.3, "last_loud_mono": 98.4}
    assert due(picture(**waiting)).act is Act.LEAVE
    pace.waits.append(1.4)
    assert due(picture(**waiting)).act is Act.NOTHING
    assert due(picture(**waiting, stall_s=1.2)).act is Act.LEAVE, "the deadline is a limit"


def test_a_recogniser_that_usually_answers_soon_is_left_before_its_deadline() -> None:
    pace = Pace()
    silent = {"asked": True, "begun_mono": 98.7, "late_mono": 101.7, "pace": pace}
    assert due(picture(**silent)).act is Act.NOTHING, "nothing is known of it"
    pace.firsts.append(0.4)
    assert due(picture(**silent)).act is Act.LEAVE
    assert due(picture(**silent, style=Style.FINAL)).act is Act.NOTHING, "it answers at the end"
    assert due(picture(**silent, speech_s=0.3)).act is Act.NOTHING, "maybe a cough"
    pace.firsts.append(0.8)
    found = due(picture(**silent))
    assert (found.act, found.wait_s) == (Act.NOTHING, pytest.approx(0.3))
    assert due(picture(**silent | {"late_mono": 99.9})).act is Act.LATE


def test_a_recogniser_that_is_slow_by_nature_is_given_its_time_before_the_next_is_asked() -> None:
    pace = Pace()
    asked = {"asked": True, "begun_mono": 98.4, "style": Style.REQUEST, "others": True, "pace": pace}
    assert due(picture(**asked)).act is Act.LEAVE
    pace.firsts.append(1.1)
    assert due(picture(**asked)).act is Act.NOTHING


@given(
    st.builds(
        picture,
        style=st.sampled_from(Style),
        speech_s=st.floats(0, 40),
        last_loud_mono=st.floats(0, 100),
        last_event_mono=st.floats(0, 100),
        late_mono=st.floats(0, 200),
        stall_s=st.floats(0.1, 10),
        sure=st.booleans(),
        asked=st.booleans(),
        answered=st.booleans(),
        words=st.booleans(),
    )
)
def test_it_never_asks_to_look_again_at_once_for_nothing(p: Picture) -> None:
    found: Due = due(p)
    if found.act is Act.NOTHING and found.wait_s is not None:
        assert found.wait_s > 0


def filled(pattern: str) -> Tape:
    """A tape of 100 ms a letter: x is loud, . is quiet."""
    tape = Tape()
    for number, letter in enumerate(pattern):
        tape.push(letter + str(number), 0.1, letter == "x", 50.0 + number / 10)
    return tape


def kept(tape: Tape) -> str:
    return "".join(str(item.frame)[0] for item in tape.replay())


def test_replay_begins_just_before_the_speech() -> None:
    tape = filled("..........xxxx..")
    assert kept(tape) == "..." + "xxxx.."
    assert tape.replay()[0].at_s == pytest.approx(1.0 - PRE_ROLL_S)


def test_nothing_is_replayed_of_silence() -> None:
    assert filled("......").replay() == []


def test_an_answered_utterance_is_forgotten() -> None:
    tape = filled("..xxxx...xxx....")
    tape.answered()
    assert tape.replay() == []
    assert tape.speech_s == 0.0
    tape.push("x", 0.1, loud=True, now_mono=60.0)
    assert tape.replay()[-1].at_s == pytest.approx(1.6)


def test_who_speaks_again_before_the_answer_came_is_kept() -> None:
    tape = filled("..xxxxx....xxx")
    tape.answered()
    assert kept(tape) == "...xxx"
    tape = filled("..xxxxx....xxx.")  # between two words
    tape.answered()
    assert kept(tape) == "...xxx."
    tape = filled("..xxxxx...xxxxxxxx.")  # the answer is to all of it
    tape.answered()
    assert kept(tape) == ""


def test_a_known_end_decides() -> None:
    tape = filled("xxxxxxxxxx")
    tape.answered(0.6)
    assert kept(tape) == "xxxx"


@given(st.text(alphabet="x.", max_size=400))
@settings(max_examples=40)
def test_the_tape_is_bounded(pattern: str) -> None:
    tape = filled(pattern)
    assert tape.held_s <= 30.05
    assert tape.end_s == pytest.approx(len(pattern) / 10)
    assert tape.speech_s == pytest.approx(sum(item.seconds for item in tape.replay() if item.loud), abs=0.001)


def test_a_long_story_that_words_were_found_in_is_kept_until_it_is_answered() -> None:
    tape = Tape()
    tape.worded = True
    for number in range(2000):
        tape.push("x", 0.1, loud=True, now_mono=number / 10)
        if number == 500:
            assert tape.held_s == pytest.approx(50.1)
    assert tape.held_s <= 120.05
    tape.answered(150.0)
    tape.push("x", 0.1, loud=True, now_mono=200.0)
    assert tape.held_s <= 30.05


def test_the_meter_hears_speech_over_noise_and_learns_the_noise() -> None:
    chance = np.random.default_rng(7)
    meter = Meter()

    def frame(level: float) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        return chance.normal(0, level, 320).astype(np.int16)

    assert not meter.loud(frame(20), FRAME_S)
    assert meter.loud(frame(2000), FRAME_S)
    for _ in range(3000):
        meter.loud(frame(300), FRAME_S)
    assert not meter.loud(frame(300), FRAME_S), "a fan for a minute is noise"
    assert meter.loud(frame(3000), FRAME_S)


def test_the_session_hears_one_start_and_one_end() -> None:
    said = Utterance()
    assert [said.end(), said.start(), said.start(), said.end(), said.end()] == [
        False,
        True,
        False,
        True,
        False,
    ]
    said.complete()
    assert said.start()


def test_an_outage_is_told_once_and_then_seldom() -> None:
    outage = Outage()
    assert not outage.complain(100.0, 99.0), "nobody has failed yet"
    assert 0.25 <= outage.pause_s(0.0) <= outage.pause_s(1.0) <= outage.pause_s(1.0) <= 5.0
    assert outage.complain(100.0, 99.0)
    assert not outage.complain(100.5, 100.4)
    assert not outage.complain(100.0 + COMPLAIN_EVERY_S, 99.0), "the caller said nothing since"
    assert outage.complain(100.0 + COMPLAIN_EVERY_S, 105.0)
