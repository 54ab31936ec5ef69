"""The stand-ins' ear: utterances and their words."""

from __future__ import annotations

import numpy as np

from worker.simulator.hearing import Ear, Happening
from worker.simulator.wordcode import Pcm, speak


def said(text: str) -> Pcm:
    return speak(text.split(), 16_000)[0]


def quiet(seconds: float) -> Pcm:
    return np.zeros(round(16_000 * seconds), np.int16)


def hear(ear: Ear, *pieces: Pcm) -> list[Happening]:
    return [happening for piece in pieces for happening in ear.push(piece)]


def test_an_utterance_ends_after_silence() -> None:
    happened = hear(Ear(16_000), quiet(0.5), said("Amber bridge."), quiet(0.25))
    assert [happening.kind for happening in happened] == ["start", "update", "update"]
    assert happened[-1].text == "Amber bridge."
    ended = hear(ear := Ear(16_000), said("Amber bridge."), quiet(0.35), said("Copper."), quiet(0.35))
    assert [happening.text for happening in ended if happening.kind == "end"] == ["Amber bridge.", "Copper."]
    assert not ear.speaking


def test_a_short_pause_is_within_an_utterance() -> None:
    happened = hear(Ear(16_000, 0.3, 0.15), said("Amber"), quiet(0.2), said("bridge."), quiet(0.4))
    kinds = [happening.kind for happening in happened]
    assert kinds == ["start", "update", "eager_end", "resume", "update", "eager_end", "end"]
    assert happened[-1].text == "Amber bridge."


def test_finishing_ends_what_is_being_said() -> None:
    ear = Ear(16_000)
    hear(ear, said("Amber bridge."), quiet(0.1))
    assert [happening.text for happening in ear.finish()] == ["Amber bridge."]
    assert ear.finish() == []


def test_sound_without_words_is_an_utterance_without_words() -> None:
    tone = (8_000 * np.sin(np.arange(16_000) / 10)).astype(np.int16)
    happened = hear(Ear(16_000), tone, quiet(0.4))
    assert [(happening.kind, happening.text) for happening in happened] == [("start", ""), ("end", "")]
