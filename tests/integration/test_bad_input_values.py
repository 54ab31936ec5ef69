"""Odd values that reach the fleet from outside: model names of every kind, and error texts with keys in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from livekit.plugins import groq, openai

from supervisor.wire.keys import Keys
from supervisor.wire.messages import FaultEvent
from supervisor.wire.targets import escape_path
from tests.support.api_rig import OTHER, rig
from tests.support.link_fleet import leader_hand
from tests.support.redis_server import RedisServer, sync_client
from tests.support.replicas import view
from tests.support.reporting import RawWorker, snapshot
from tests.support.simulated import ask
from tests.support.waiting import wait_until
from worker.guard.llm import GuardedLLM
from worker.link import EmbeddedLink, LinkSettings
from worker.providers import Clients
from worker.simulator.server import SimulatorServer

ODD = "llm:groq:meta~llama/4:größe-漢字 ☎/v2~1"


async def test_a_model_with_slashes_colons_and_unicode_goes_the_whole_way(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet) as face:
        worker = await face.worker("w1", ODD, OTHER)
        (item,) = [t for t in await face.shown(ODD) if t["id"] == ODD]
        assert (item["provider"], item["model"]) == ("groq", "meta~llama/4:größe-漢字 ☎/v2~1")
        path = f"/v1/targets/{quote(escape_path(ODD), safe='~:')}"
        assert (await face.get(path))["id"] == ODD
        answer = await face.http.put(f"{path}/override", json={"state": "forced_unhealthy", "reason": "odd"})
        assert answer.status_code == 200, answer.text
        strategy = await snapshot(face.context.redis, face.context.keys, ODD)
        assert strategy is not None
        assert strategy.admit == 0.0
        worker.fault(ODD)
        await worker.send()

        async def counted() -> bool:
            return (await face.get(path))["faults"] == 1

        await wait_until(counted, "its faults are counted")
        assert (await face.get(f"{path}/history"))["items"] is not None
        assert (await face.http.delete(f"{path}/override")).status_code == 204


@pytest.mark.parametrize(
    "bad", ["nonsense", "llm::x", "video:groq:x", "llm:groq:a\x00b", "llm:groq:\u202ex", ""]
)
async def test_what_is_no_target_id_costs_the_others_nothing(redis_url: str, fleet: str, bad: str) -> None:
    async with rig(redis_url, fleet) as face:
        worker = await face.worker("w1", OTHER)
        other = RawWorker(face.context.redis, face.context.keys, "w2")
        other.ok(OTHER)
        other.ok(bad)
        await other.register()
        await other.send()

        async def counted() -> bool:
            # Again and again: what comes in a gap of the leader's own counts for nothing.
            worker.fault(OTHER)
            await worker.send()
            found = await face.shown(OTHER)
            return any(t["id"] == OTHER and t["faults"] for t in found)

        await wait_until(counted, "the reports of the other worker count", every_s=0.2)
        assert bad not in [t["id"] for t in await face.shown(OTHER)]
        assert face.context.counters.step_errors == 0

        async def noticed() -> bool:
            picture = await view(face.context.redis, face.context.keys)
            named = picture.counters.get("targets_unreadable", 0) if picture else 0
            return named + face.context.counters.unreadable.total() > 0

        await wait_until(noticed, "it is counted")


async def test_a_key_in_a_providers_error_never_leaves_the_worker(
    own_redis: RedisServer, fleet: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "gsk_1234567890abcdefghijkl"
    clients = Clients()
    async with SimulatorServer() as sim, echoing() as echo, leader_hand(own_redis.url, fleet) as hand:
        link = EmbeddedLink(LinkSettings(fleet=fleet, worker="w1", redis_url=own_redis.url))
        await link.start()
        plugins: list[Any] = [
            groq.LLM(api_key=key, client=clients.sdk(echo, key)),
            openai.LLM(model="gpt-4.1-mini", client=clients.sdk(sim.base_url("openai"), "good")),
        ]
        guarded = GuardedLLM(plugins, link, session="call-with-key")
        assert (await ask(guarded, ("user", "What is new?"))).text

        async def told() -> list[FaultEvent]:
            return await hand.stream("faults", FaultEvent)

        (event,) = await wait_until(told, "the fault line")
        assert event.status == 401
        assert event.message
        assert event.session == "call-with-key"
        await guarded.aclose()
        await link.aclose()
        await clients.aclose()
    held = everything(own_redis.url)
    assert b"call-with-key" in held, "otherwise this test looks at nothing"
    assert b"1234567890" not in held
    assert Keys(fleet)("faults").encode() in held
    printed = capfd.readouterr()
    assert "1234567890" not in printed.out + printed.err


@asynccontextmanager
async def echoing() -> AsyncGenerator[str]:
    """A provider that puts the key it was given into its error's text, as some do; gives its base URL."""

    async def refuse(request: web.Request) -> web.Response:
        given = request.headers["Authorization"]
        text = f"Incorrect API key provided: {given.split()[-1]} (from {given!r}, user +49 170 1234567890)"
        error = {"message": text, "type": "invalid_request_error", "code": "invalid_api_key"}
        return web.json_response({"error": error}, status=401, headers={"x-request-id": "req_1"})

    app = web.Application()
    app.router.add_post("/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def everything(url: str) -> bytes:
    """All that a server holds, as bytes."""
    with sync_client(url) as client:
        client.config_set("rdbcompression", "no")
        keys = list(client.scan_iter(count=1000))
        return b"\n".join(part for key in keys for part in (key, client.dump(key) or b""))
