"""`worker check` and `worker start` agree on what is wrong with the keys."""

from __future__ import annotations

import pytest

from worker.cli.checks import run_checks
from worker.providers import start_notes
from worker.runtime.agent_ref import SHIPPED
from worker.settings import WorkerSettings, WrongSetting, read_settings

GROQ, CARTESIA, OPENAI = {"groq_api_key": "g"}, {"cartesia_api_key": "c"}, {"openai_api_key": "o"}


@pytest.fixture(autouse=True)
def no_keys_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROQ_API_KEY", "CARTESIA_API_KEY", "OPENAI_API_KEY", "REDIS_URL", "WORKER_SIMULATOR_URL"):
        monkeypatch.delenv(name, raising=False)


def starts(settings: WorkerSettings) -> bool:
    try:
        start_notes(settings)
    except WrongSetting:
        return False
    return True


@pytest.mark.parametrize(
    ("given", "good"),
    [
        ({}, False),
        (CARTESIA, False),
        (OPENAI, False),
        (GROQ, True),
        ({**CARTESIA, **OPENAI}, True),
        ({**GROQ, **CARTESIA, **OPENAI}, True),
        ({"simulator_url": "http://127.0.0.1:1"}, True),
    ],
)
async def test_check_and_start_agree(given: dict[str, str], good: bool) -> None:
    settings = read_settings(**given)
    found = {finding.name: finding for finding in await run_checks(settings, SHIPPED, probe=False)}
    assert found["providers"].ok is good
    assert starts(settings) is good
    assert found["providers"].detail


async def test_an_agent_of_ones_own_needs_no_keys_of_ours() -> None:
    found = await run_checks(read_settings(), "worker.drill.agents:plain", probe=False)
    assert [finding.ok for finding in found] == [True] * len(found)
