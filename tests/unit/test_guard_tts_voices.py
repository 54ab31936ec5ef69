"""Voices that take each other's place sound alike."""

from __future__ import annotations

import pytest
from livekit.plugins import cartesia, groq

from worker.guard.voices import Voice, find, match, take_voice_of, voice_id_of

WOMAN, MAN = Voice("w", "female", "en"), Voice("m", "male", "en")


@pytest.mark.parametrize(
    ("wanted", "provider", "current", "expected"),
    [
        (WOMAN, "groq", "autumn", None),
        (MAN, "groq", "autumn", "austin"),
        (WOMAN, "groq", "troy", "autumn"),
        (Voice("n", "female", "ar"), "groq", "autumn", "lulwa"),
        (MAN, "openai", "nova", "ash"),
        (MAN, "nobody", "x", None),
        (MAN, "cartesia", "a-clone-of-mine", None),
        (Voice("d", "male", "de"), "groq", "autumn", None),
    ],
)
def test_match(wanted: Voice, provider: str, current: str, expected: str | None) -> None:
    assert match(wanted, provider, current) == expected


def test_the_users_own_table_goes_first() -> None:
    own = {"groq": [Voice("clone", "male", "en")], "acme": [Voice("bob", "male", "en")]}
    assert match(MAN, "groq", "autumn", own) == "clone"
    assert find("acme", "bob", own) == Voice("bob", "male", "en")
    assert find("acme", "bob") is None


def test_a_plugin_takes_a_voice_like_the_other() -> None:
    man = cartesia.TTS(api_key="key", voice="a167e0f3-df7e-4d52-a9c3-f949145efdab")
    other = groq.TTS(api_key="key", voice="autumn")
    assert take_voice_of(other, man) == "austin"
    assert voice_id_of(other) == "austin"
    assert take_voice_of(other, man) is None


def test_an_unknown_voice_changes_nothing() -> None:
    unknown = cartesia.TTS(api_key="key", voice="a-clone-of-mine")
    other = groq.TTS(api_key="key", voice="troy")
    assert take_voice_of(other, unknown) is None
    assert voice_id_of(other) == "troy"
