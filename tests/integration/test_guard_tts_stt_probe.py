"""Probes of voices and recognisers with the real plugins against the stand-ins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from livekit.plugins import cartesia, groq

from supervisor.wire.vocabulary import FaultKind
from worker.guard.stt_probe import probe_stt, recording
from worker.guard.tts_probe import probe_tts
from worker.simulator.server import SimulatorServer
from worker.simulator.wordcode import decode

BUDGET_MS = 3000


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


@pytest.fixture
async def plugins(sim: SimulatorServer) -> AsyncIterator[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        base: dict[str, Any] = {"api_key": "key", "http_session": session}
        made: dict[str, Any] = {
            "tts:cartesia": cartesia.TTS(base_url=sim.base_url("cartesia"), **base),
            "tts:groq": groq.TTS(base_url=sim.base_url("groq"), **base),
            "stt:cartesia": cartesia.STT(base_url=sim.base_url("cartesia"), **base),
            "stt:groq": groq.STT(api_key="key", base_url=sim.base_url("groq")),
        }
        yield made
        for plugin in made.values():
            await plugin.aclose()


@pytest.mark.parametrize("name", ["tts:cartesia", "tts:groq", "stt:cartesia", "stt:groq"])
async def test_good_probe(plugins: dict[str, Any], name: str) -> None:
    probe = probe_tts if name.startswith("tts") else probe_stt
    probed = await probe(plugins[name], BUDGET_MS)
    assert probed.fault is None
    assert 0 < probed.first_output_ms <= probed.total_ms < BUDGET_MS


@pytest.mark.parametrize("name", ["tts:cartesia", "tts:groq", "stt:cartesia", "stt:groq"])
@pytest.mark.parametrize(
    ("fault", "fields", "kinds"),
    [
        ("hang", {}, {FaultKind.FIRST_OUTPUT_TIMEOUT}),
        ("status", {"status": 401}, {FaultKind.AUTHENTICATION}),
        (
            "silent",
            {},
            {FaultKind.SILENT, FaultKind.EMPTY, FaultKind.UNKNOWN, FaultKind.FIRST_OUTPUT_TIMEOUT},
        ),
        ("cut", {"after_chunks": 1}, {FaultKind.CUT, FaultKind.CONNECT}),
    ],
)
async def test_bad_probe(
    sim: SimulatorServer,
    plugins: dict[str, Any],
    name: str,
    fault: str,
    fields: dict[str, Any],
    kinds: set[FaultKind],
) -> None:
    role, provider = name.split(":")
    sim.set_fault(role, provider, fault, **fields)
    probe = probe_tts if role == "tts" else probe_stt
    probed = await probe(plugins[name], 800)
    assert probed.fault is not None
    assert probed.fault.kind in kinds


def test_the_recording_is_speech_that_stand_ins_can_read() -> None:
    frame = recording()
    assert decode(bytes(frame.data), frame.sample_rate) == ["Hello,", "good", "morning."]
