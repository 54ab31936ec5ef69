"""The worker's settings and the plugins made from them."""

from __future__ import annotations

import pytest

from worker.providers import build_providers
from worker.settings import WorkerSettings, WrongSetting, load_settings, read_settings

KEYS = ("GROQ_API_KEY", "CARTESIA_API_KEY", "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "REDIS_URL", "LIVEKIT_URL")
SECRET = "gsk_verySecret123456"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("WORKER_") or name in KEYS:
            monkeypatch.delenv(name)


def test_defaults_need_no_variable_at_all() -> None:
    settings = read_settings()
    assert settings.fleet == "default"
    assert settings.redis_url is None
    assert settings.groq_url == "https://api.groq.com/openai/v1"
    assert settings.id != read_settings().id, "two workers on one host are two"


def test_one_simulator_url_moves_all_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_SIMULATOR_URL", "http://127.0.0.1:9100/")
    monkeypatch.setenv("WORKER_OPENAI_BASE_URL", "http://other:1/v1")
    settings = read_settings()
    assert settings.groq_url == "http://127.0.0.1:9100/groq/openai/v1"
    assert settings.cartesia_url == "http://127.0.0.1:9100/cartesia"
    assert settings.openai_url == "http://other:1/v1"


def test_empty_variables_are_unset_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "")
    assert read_settings().groq_api_key is None


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("WORKER_FLEET", "Not A Fleet", "WORKER_FLEET: fleet must be 1 to 63"),
        ("REDIS_URL", "http://x", "REDIS_URL: must begin with redis://"),
        ("WORKER_GROQ_BASE_URL", "ftp://x", "WORKER_GROQ_BASE_URL: must be an http://"),
        ("WORKER_CARTESIA_BASE_URL", "https://u:p@x", "WORKER_CARTESIA_BASE_URL: must not hold a user"),
        ("WORKER_LATENCY_BUDGET_MS", "soon", "WORKER_LATENCY_BUDGET_MS: "),
        ("WORKER_LOG_LEVEL", "loud", "WORKER_LOG_LEVEL: must be one of"),
        (
            "WORKER_AGENT",
            "no colon",
            "WORKER_AGENT: must be written pkg.module:server or pkg.module:entrypoint",
        ),
        ("LIVEKIT_URL", "x", "LIVEKIT_URL: must be a ws://"),
        ("WORKER_GROQ_BASEURL", "http://x", "did you mean WORKER_GROQ_BASE_URL?"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(WrongSetting) as caught:
        read_settings()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        load_settings()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_secrets_are_in_no_repr_and_no_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", SECRET)
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@host/0")
    assert SECRET not in repr(read_settings())
    monkeypatch.setenv("REDIS_URL", f"redus://:{SECRET}@host/0")
    with pytest.raises(WrongSetting) as caught:
        read_settings()
    assert SECRET not in str(caught.value)


def settings(**given: object) -> WorkerSettings:
    return read_settings(**given)


async def test_providers_come_in_the_promised_order() -> None:
    made = build_providers(settings(groq_api_key=SECRET, cartesia_api_key="sk_car_1", openai_api_key="sk-1"))
    assert [c.target for c in made.stt] == ["stt:cartesia:ink-2", "stt:groq:whisper-large-v3-turbo"]
    assert [c.target for c in made.llm] == ["llm:groq:llama-3.3-70b-versatile", "llm:openai:gpt-4.1-mini"]
    assert [c.target for c in made.tts] == ["tts:cartesia:sonic-3", "tts:groq:canopylabs/orpheus-v1-english"]
    assert [c.order for c in (*made.stt, *made.llm, *made.tts)] == [0, 1, 0, 1, 0, 1]
    assert made.notes == []
    fingerprints = {c.target: c.key_fp for c in (*made.stt, *made.llm, *made.tts)}
    assert fingerprints["stt:groq:whisper-large-v3-turbo"] == fingerprints["llm:groq:llama-3.3-70b-versatile"]
    assert fingerprints["stt:cartesia:ink-2"] != fingerprints["llm:openai:gpt-4.1-mini"]
    assert SECRET not in repr(made.llm) + repr(fingerprints)
    await made.aclose()


async def test_without_an_openai_key_a_second_groq_model_steps_in_and_that_is_said() -> None:
    made = build_providers(settings(groq_api_key=SECRET, cartesia_api_key="sk_car_1"))
    assert [c.target for c in made.llm] == ["llm:groq:llama-3.3-70b-versatile", "llm:groq:openai/gpt-oss-20b"]
    assert "no OPENAI_API_KEY" in made.notes[0]
    await made.aclose()


async def test_stand_ins_need_no_keys() -> None:
    made = build_providers(settings(simulator_url="http://127.0.0.1:1"))
    assert len(made.llm) == len(made.stt) == len(made.tts) == 2
    await made.aclose()


@pytest.mark.parametrize("given", [{}, {"cartesia_api_key": "x"}, {"openai_api_key": "x"}])
async def test_a_role_without_any_provider_stops_the_start(given: dict[str, object]) -> None:
    with pytest.raises(WrongSetting, match="must be set"):
        build_providers(settings(**given))


def test_a_fallback_must_be_another_model() -> None:
    with pytest.raises(WrongSetting, match="WORKER_GROQ_LLM_FALLBACK_MODEL must differ"):
        settings(groq_llm_fallback_model="llama-3.3-70b-versatile")
