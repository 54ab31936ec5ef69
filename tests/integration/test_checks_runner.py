"""Checks against the stand-ins: what the engine and the page are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from supervisor.checks.providers import Look, Source, looks
from supervisor.checks.runner import Runner, make_http, run
from supervisor.core.inputs import CheckEnded
from supervisor.runtime.supervisor import open_context
from tests.support.api_rig import rig, settings_for
from tests.support.redis_server import free_port
from tests.support.waiting import wait_until
from worker.simulator.server import SimulatorServer

KEY = "good-key-that-nobody-may-see"


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


def _settings(redis_url: str, fleet: str, url: str, **given: object) -> Any:
    pages = {
        f"{name}_status_url": f"{url}/status/{name}/api/v2/summary.json"
        for name in ("groq", "cartesia", "openai")
    }
    return settings_for(
        redis_url,
        fleet,
        **{
            "checks": True,
            "checks_interval_s": 1,
            "status_interval_s": 5,
            "groq_api_key": KEY,
            "cartesia_api_key": KEY,
            "openai_api_key": KEY,
            "groq_base_url": f"{url}/groq/openai/v1",
            "cartesia_base_url": f"{url}/cartesia",
            "openai_base_url": f"{url}/openai/v1",
            **pages,
            **given,
        },
    )


@contextlib.asynccontextmanager
async def _runner(
    settings: Any,
) -> AsyncGenerator[tuple[Runner, dict[tuple[str, str], Look], list[CheckEnded]]]:
    told: list[CheckEnded] = []
    context, _ = open_context(settings)
    async with make_http() as http:
        yield (
            Runner(context, told.append, http),
            {(look.provider, look.source.value): look for look in looks(settings)},
            told,
        )
    await context.redis.aclose()
    await context.redis_blocking.aclose()


async def test_good_bad_and_troubled_providers(redis_url: str, fleet: str, sim: SimulatorServer) -> None:
    settings = _settings(redis_url, fleet, sim.url, openai_api_key="bad-key")
    async with _runner(settings) as (runner, wanted, told), httpx.AsyncClient(base_url=sim.url) as http:
        assert len(wanted) == 6
        await http.put("/faults/check/cartesia", json={"fault": "status", "status": 503})
        await http.put("/status/groq", json={"indicator": "major", "description": "Elevated errors"})
        for request in wanted.values():
            await runner.once(request)
        said = {(item.provider, item.source): item for item in told}
        assert said["groq", "api"].ok
        assert not said["cartesia", "api"].ok
        assert "503" in said["cartesia", "api"].detail
        assert not said["openai", "api"].ok
        assert "refuses the key" in said["openai", "api"].detail
        assert not said["groq", "status_page"].ok
        assert "Elevated errors" in said["groq", "status_page"].detail
        assert said["cartesia", "status_page"].ok
        asked = (await http.get("/requests")).json()["items"]
        assert {item["role"] for item in asked} == {"check"}


async def test_a_provider_that_cannot_be_reached_counts_only_while_others_can(
    redis_url: str, fleet: str, sim: SimulatorServer
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    settings = _settings(redis_url, fleet, sim.url, groq_base_url=dead)
    async with _runner(settings) as (runner, wanted, told):
        hint = await runner.once(wanted["groq", "api"])
        assert hint.ok is None
        assert told == []
        await runner.once(wanted["cartesia", "api"])
        hint = await runner.once(wanted["groq", "api"])
        assert hint.ok is False
        assert [item.provider for item in told] == ["cartesia", "groq"]
        assert KEY not in repr(told)


async def test_a_hanging_host_is_given_up(
    redis_url: str, fleet: str, sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.checks.runner.TOTAL_S", 0.3)
    async with (
        _runner(_settings(redis_url, fleet, sim.url)) as (runner, wanted, _),
        httpx.AsyncClient() as http,
    ):
        await http.put(f"{sim.url}/faults/check/groq", json={"fault": "hang"})
        await runner.once(wanted["cartesia", "api"])
        hint = await runner.once(wanted["groq", "api"])
        assert hint == (False, "does not answer in time")


async def test_a_key_never_follows_a_redirect(redis_url: str, fleet: str) -> None:
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = _settings(redis_url, fleet, url)
        async with _runner(settings) as (runner, wanted, _):
            assert (await runner.once(wanted["groq", "api"])).ok is None
    assert len(asked) == 1
    assert KEY.encode() in asked[0]


async def test_the_leader_checks_and_the_page_and_metrics_show_it(
    redis_url: str, fleet: str, sim: SimulatorServer
) -> None:
    settings = _settings(redis_url, fleet, sim.url)
    context, _ = open_context(settings)
    told: list[CheckEnded] = []
    task = asyncio.create_task(run(context, told.append))
    try:
        async with rig(redis_url, fleet) as face:
            await face.worker("w1")
            await wait_until(lambda: len({(t.provider, t.source) for t in told}) == 6, "all looks", 10)

            async def kept() -> bool:
                return len(await face.api.records.checks()) == 6

            await wait_until(kept, "all records")
            page = (await face.http.get("/")).text
            assert "Hints beside the evidence" in page
            metrics = (await face.http.get("/metrics")).text
            assert 'livekit_supervisor_check_ok{provider="groq",source="api"} 1.0' in metrics
            assert KEY not in page + metrics
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await context.redis.aclose()
        await context.redis_blocking.aclose()


async def test_without_keys_or_with_checks_off_nothing_is_asked(
    redis_url: str, fleet: str, sim: SimulatorServer
) -> None:
    for given in (
        {"checks": False},
        {"groq_api_key": None, "cartesia_api_key": None, "openai_api_key": None},
    ):
        context, _ = open_context(_settings(redis_url, fleet, sim.url, **given))
        async with asyncio.timeout(5):
            await run(context, lambda _: None)
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{sim.url}/requests")).json()["items"] == []


async def test_source_names_are_stable() -> None:
    assert [source.value for source in Source] == ["api", "status_page"]
