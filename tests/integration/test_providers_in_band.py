"""Plugins made from settings, against the stand-ins: all roles work, and Cartesia's in-band errors are seen."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import pytest
from livekit.agents import APIError, APIStatusError, stt

from supervisor.wire.vocabulary import FaultKind, Phase
from tests.support.simulated import ONCE, TEXT, ask, quiet, say, spoken, words_in
from worker.guard.evidence import fault_of
from worker.providers import Providers, build_providers
from worker.settings import read_settings
from worker.simulator.server import SimulatorServer


@contextlib.asynccontextmanager
async def provided(**given: object) -> AsyncGenerator[tuple[SimulatorServer, Providers]]:
    async with SimulatorServer() as sim:
        made = build_providers(read_settings(simulator_url=sim.url, **given))
        try:
            yield sim, made
        finally:
            await made.aclose()


async def test_every_plugin_made_from_settings_works() -> None:
    async with provided() as (sim, made):
        for child in made.llm:
            assert (await ask(child.plugin, ("user", "hello"))).text
        for child in made.tts:
            assert words_in(await say(child.plugin)) == TEXT.split()
        asked = {(request["role"], request["provider"]) for request in sim.requests()}
        assert asked == {("llm", "groq"), ("llm", "openai"), ("tts", "cartesia"), ("tts", "groq")}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, FaultKind.CONCURRENCY), (401, FaultKind.AUTHENTICATION), (500, FaultKind.SERVER)],
)
async def test_an_in_band_error_of_the_voice_is_raised_with_its_kind(status: int, kind: FaultKind) -> None:
    async with provided() as (sim, made):
        voice = made.tts[0].plugin
        await say(voice)  # the socket is open and pooled from here on
        sim.set_fault("tts", "cartesia", "status", status=status)
        with pytest.raises(APIError) as caught:
            await say(voice)
        fault = fault_of(caught.value, "cartesia", Phase.FIRST_OUTPUT)
        assert (fault.kind, fault.status) == (kind, status)


async def _to_the_end(stream: stt.RecognizeStream) -> None:
    async for _ in stream:
        pass


@pytest.mark.parametrize("model", ["ink-2", "ink-whisper"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, FaultKind.CONCURRENCY), (401, FaultKind.AUTHENTICATION), (500, FaultKind.SERVER)],
)
async def test_an_in_band_error_of_the_recogniser_is_raised_with_its_kind(
    model: str, status: int, kind: FaultKind
) -> None:
    async with provided(cartesia_stt_model=model) as (sim, made):
        recogniser = made.stt[0].plugin
        async with recogniser.stream(conn_options=ONCE) as stream:
            stream.push_frame(spoken("one two three four"))
            stream.push_frame(quiet(1.0))
            await stream.__anext__()  # it listens
            sim.set_fault("stt", "cartesia", "status", status=status)
            with pytest.raises(APIStatusError) as caught:
                await _to_the_end(stream)
        fault = fault_of(caught.value, "cartesia", Phase.MID_STREAM)
        assert (fault.kind, fault.status) == (kind, status)
        assert fault.request_id
