"""Whose voice the caller hears after a change of services, with the real plugins against the stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.guarded_tts import CARTESIA, GROQ, WORDS, Rig, rigged
from tests.support.simulated import words_in
from worker.guard.tts import GuardedTTS
from worker.guard.voices import voice_id_of
from worker.simulator import speech_http


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as made:
        yield made


MAN = "a167e0f3-df7e-4d52-a9c3-f949145efdab"
SPANISH = "5c5ad5e7-1020-476b-8b91-fdcbe9cc313c"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The voices that the second provider's stand-in was asked for."""
    voices: list[str] = []
    utter = speech_http.utter

    def noting(stand: Any, text: str, rate: int, voice: str, fault: Any) -> Any:
        voices.append(voice)
        return utter(stand, text, rate, voice, fault)

    monkeypatch.setattr(speech_http, "utter", noting)
    return voices


async def test_a_voice_that_changes_stays_a_mans_and_is_put_back(rig: Rig, asked: list[str]) -> None:
    rig.cartesia.update_options(voice=MAN)
    rig.groq.update_options(voice="autumn")
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    assert words_in(await rig.say()) == WORDS
    assert set(asked) == {"austin"}
    assert voice_id_of(rig.groq) == "austin", "for the rest of the call"
    await rig.close()
    assert voice_id_of(rig.groq) == "autumn", "the plugin is its owner's"


async def test_a_voice_that_its_owner_changed_since_is_left(rig: Rig) -> None:
    rig.cartesia.update_options(voice=MAN)
    rig.groq.update_options(voice="autumn")
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    await rig.say("A short sentence.")
    rig.groq.update_options(voice="daniel")
    await rig.close()
    assert voice_id_of(rig.groq) == "daniel"


async def test_voices_are_matched_only_if_wished(rig: Rig, asked: list[str]) -> None:
    rig.cartesia.update_options(voice=MAN)
    rig.groq.update_options(voice="autumn")
    rig.tts = GuardedTTS([rig.cartesia, rig.groq], rig.link, match_voices=False)
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    assert words_in(await rig.say()) == WORDS
    assert set(asked) == {"autumn"}


async def test_a_voice_is_not_kept_when_told_otherwise(rig: Rig) -> None:
    rig.tts = GuardedTTS([rig.cartesia, rig.groq], rig.link, sticky=False)
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    await rig.say("A first sentence here.")
    rig.sim.clear_faults()
    await rig.say("A second sentence here.")
    assert rig.link.ends()[-2:] == [(GROQ, "ok"), (CARTESIA, "ok")]
    assert rig.tts.voice_target is None


async def test_the_first_voice_that_comes_back_is_the_one_that_was_chosen(rig: Rig) -> None:
    """Its substitute has no voice of that language: what it spoke with is no model for the one it stood in for."""
    rig.tts = GuardedTTS([rig.cartesia, rig.groq], rig.link, sticky=False)
    rig.cartesia.update_options(voice=SPANISH)
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    await rig.say("A first sentence here.")
    rig.sim.clear_faults()
    await rig.say("A second sentence here.")
    assert rig.link.ends()[-1] == (CARTESIA, "ok")
    assert voice_id_of(rig.cartesia) == SPANISH
