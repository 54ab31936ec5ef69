"""The words for callers: every language whole, no technical word in any, the user's own checked."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from worker.recovery.phrases import FallbackMessages, base_language, languages, shipped
from worker.recovery.sounds import APOLOGY, recording, recordings

# What callers have nothing to do with, in the shipped languages.
TECHNICAL = (
    "error", "fehler", "erreur", "errore", "erro ", "ошибк", "hata", "fout", "błąd", "त्रुटि", "错误", "错誤", "エラー",
    "오류", "api", "server", "servidor", "serveur", "сервер", "sunucu", "serwer", "서버", "服务器", "サーバ",
    "timeout", "model", "modelo", "modèle", "модел", "token", "llm", "stt", "tts", "rate limit", "http", "exception",
    "network", "netzwerk", "réseau", "сеть", "connection", "verbindung", "technical", "technisch", "техническ",
    "system", "systém", "système", "sistema", "систем", "код ", "code ", "provider", "groq", "cartesia", "openai",
)  # fmt: skip
KEYS = {"llm", "tts", "stt", "llm.rate_limit", "final", "final.transfer", "final.stay"}


def test_a_dozen_languages() -> None:
    assert len(languages()) >= 12
    assert "en" in languages()


@pytest.mark.parametrize("language", languages())
def test_every_language_has_every_message_and_no_technical_word(language: str) -> None:
    messages = shipped(language)
    assert set(messages) >= KEYS
    for lines in messages.values():
        assert lines
        for line in lines:
            assert line.strip() == line
            assert not re.search(r"\d", line)
            for word in TECHNICAL:
                begins = rf"(?<![^\W\d_]){re.escape(word)}"
                assert not re.search(begins, f"{line.lower()} "), f"{language}: {word!r} in {line!r}"


@pytest.mark.parametrize("language", languages())
def test_every_language_has_recordings_of_its_messages(language: str) -> None:
    for which in (APOLOGY, "final"):
        assert 1.0 < recording(language, which).seconds < 15.0
    assert recordings()[language][APOLOGY] in shipped(language)["tts"]
    assert recordings()[language]["final"] in shipped(language)["final"]


def test_an_unknown_language_falls_back_to_english() -> None:
    messages = FallbackMessages("tlh")
    assert messages.next(("llm",)) in shipped("en")["llm"]
    assert recording("tlh", APOLOGY).text == recordings()["en"][APOLOGY]


@pytest.mark.parametrize(
    ("given", "base"), [("en-US", "en"), ("de_AT", "de"), ("cmn-Hans-CN", "zh"), (" PT-br", "pt"), ("", "")]
)
def test_language_codes(given: str, base: str) -> None:
    assert base_language(given) == base


def test_messages_take_turns() -> None:
    messages = FallbackMessages()
    lines = shipped("en")["llm"]
    assert [messages.next(("llm",)) for _ in range(len(lines) + 1)] == [*lines, lines[0]]


def test_kind_before_role() -> None:
    messages = FallbackMessages()
    assert messages.next(("llm.rate_limit", "llm")) in shipped("en")["llm.rate_limit"]
    assert messages.next(("llm.cut", "llm")) in shipped("en")["llm"]
    assert messages.next(("realtime.server", "realtime")) in shipped("en")["llm"]


def test_the_last_words_fit_what_follows() -> None:
    messages = FallbackMessages()
    for how in ("transfer", "stay"):
        assert messages.next(messages.final_keys(how)) in shipped("en")[f"final.{how}"]
    assert messages.next(messages.final_keys("close")) in shipped("en")["final"]
    messages["final"] = ["Mine."]
    assert messages.next(messages.final_keys("transfer")) == "Mine."
    messages["final.transfer"] = ["A colleague."]
    assert messages.next(messages.final_keys("transfer")) == "A colleague."


def test_own_messages_in_every_language() -> None:
    messages = FallbackMessages("de")
    messages["llm"] = ["Moment!"]
    messages["tts", "cut"] = ["Weg."]
    messages.language = "fr"
    assert messages.next(("llm",)) == "Moment!"
    assert messages["tts.cut"] == ["Weg."]
    del messages["llm"]
    assert messages.next(("llm",)) in shipped("fr")["llm"]


def test_what_is_appended_is_said() -> None:
    messages = FallbackMessages()
    messages["tts"].append("One more.")
    messages["tts"].append("")
    said = [messages.next(("tts",)) for _ in range(3)]
    assert said == [*shipped("en")["tts"], "One more."]


@pytest.mark.parametrize("wrong", [[], "one", [""], ["ok", "  "], ["ok", 3], None, 7])
def test_lists_that_cannot_be_spoken(wrong: object) -> None:
    messages = FallbackMessages()
    with pytest.raises(ValueError, match=r"fallback_messages\['llm'\]"):
        messages["llm"] = cast("Any", wrong)
    assert messages.next(("llm",)) in shipped("en")["llm"]


@pytest.mark.parametrize("wrong", ["lmm", "llm.rate", ("llm", "x"), ("llm", "cut", "x"), "rate_limit"])
def test_keys_that_do_not_exist(wrong: Any) -> None:
    with pytest.raises(KeyError):
        FallbackMessages()[wrong] = ["x"]
