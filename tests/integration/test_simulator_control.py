"""The operator's side of the stand-ins, over HTTP and as a process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.simulated import ask
from tests.support.waiting import wait_until
from worker.simulator import PROBE_MARK, SimulatorServer
from worker.simulator.plugins import groq_llm

KEY = {"Authorization": "Bearer k"}


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


@pytest.fixture
async def http(sim: SimulatorServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sim.url) as client:
        yield client


async def put(http: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    async with http.put(path, json=body) as response:
        return response.status, await response.json()


async def get(http: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any]:
    async with http.get(path, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_a_fault_is_put_on_shown_and_taken_off(
    sim: SimulatorServer, http: aiohttp.ClientSession
) -> None:
    status, body = await put(http, "/faults/llm/groq/openai/gpt-oss-20b", {"fault": "status", "status": 429})
    assert status == 200
    assert (body["role"], body["provider"], body["model"]) == ("llm", "groq", "openai/gpt-oss-20b")
    assert (body["fault"], body["status"], body["share"]) == ("status", 429, 1.0)
    assert (await get(http, "/faults"))[1]["items"] == [body]
    await put(http, "/faults/llm/groq", {"fault": "hang"})
    async with http.delete("/faults/llm/groq/openai/gpt-oss-20b") as response:
        assert response.status == 204
    assert [item["fault"] for item in (await get(http, "/faults"))[1]["items"]] == ["hang"]
    async with http.delete("/faults") as response:
        assert response.status == 204
    assert (await get(http, "/faults"))[1] == {"items": []}
    assert (await get(http, "/healthz"))[1] == {"status": "ok", "faults": 0}


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/faults/llm/groq", {"fault": "boom"}, "boom"),
        ("/faults/llm/nobody", {"fault": "hang"}, "nobody"),
        ("/faults/tts/groq", "hang", "JSON object"),
        ("/behaviour/llm/cartesia/x", {"continue": "restart"}, "no llm"),
        ("/behaviour/llm/groq/x", {"continue": "never"}, "repeat3"),
        ("/status/groq", {"indicator": "bad"}, "indicator"),
        ("/status/acme", {"indicator": "major"}, "acme"),
    ],
)
async def test_a_wrong_wish_is_422_with_a_sentence(
    http: aiohttp.ClientSession, path: str, body: Any, said: str
) -> None:
    status, answer = await put(http, path, body)
    assert status == 422
    assert said in answer["detail"]
    assert (await get(http, "/faults"))[1] == {"items": []}


async def test_a_body_that_is_no_json_is_422(http: aiohttp.ClientSession) -> None:
    async with http.put("/faults/llm/groq", data=b"{") as response:
        assert response.status == 422
        assert (await response.json())["detail"] == "the body is not JSON"


async def test_requests_are_counted_filtered_and_forgotten(
    sim: SimulatorServer, http: aiohttp.ClientSession
) -> None:
    for model in ("a/b", "a/b", "c"):
        await ask(groq_llm(sim.url, model), ("user", "Why?"))
    _, everything = await get(http, "/requests?role=llm")
    assert [item["model"] for item in everything["items"]] == ["a/b", "a/b", "c"]
    assert sum(everything["per_second"].values()) == 3
    assert {"at", "role", "provider", "model", "fault", "status"} <= set(everything["items"][0])
    assert len((await get(http, "/requests?role=llm&model=a/b"))[1]["items"]) == 2
    assert (await get(http, "/requests?role=llm&limit=1"))[1]["items"] == everything["items"][-1:]
    since = everything["items"][1]["at"]
    assert len((await get(http, f"/requests?role=llm&since={since}"))[1]["items"]) == 2
    for wrong in ("since=yesterday", "limit=-1", "since=nan"):
        assert (await get(http, f"/requests?{wrong}"))[0] == 422
    async with http.delete("/requests") as response:
        assert response.status == 204
    assert (await get(http, "/requests"))[1]["items"] == []


async def test_a_probe_is_known_by_its_mark(sim: SimulatorServer) -> None:
    from livekit.plugins import groq

    plugin = groq.LLM(base_url=sim.base_url("groq"), api_key="k", user=PROBE_MARK)
    await ask(plugin, ("user", "Why?"))
    await ask(groq_llm(sim.url), ("user", "Why?"))
    assert [request["probe"] for request in sim.requests(role="llm")] == [True, False]


async def test_cheap_checks(sim: SimulatorServer, http: aiohttp.ClientSession) -> None:
    for base in ("/groq/openai/v1", "/openai/v1"):
        assert await get(http, f"{base}/models", **KEY) == (200, {"object": "list", "data": []})
        assert (await get(http, f"{base}/models", Authorization="Bearer bad"))[0] == 401
        assert (await get(http, f"{base}/models"))[0] == 401
    for path in ("/cartesia", "/cartesia/"):
        assert (await get(http, path))[1]["ok"] is True
    async with http.get("/cartesia/voices", headers={"X-API-Key": "bad"}) as response:
        assert response.status == 401
    assert (await get(http, "/cartesia/voices", **{"X-API-Key": "k"}))[0] == 200
    sim.set_fault("check", "groq", "status", status=503)
    assert (await get(http, "/groq/openai/v1/models", **KEY))[0] == 503
    assert sim.requests(role="llm") == []
    assert sim.requests(role="check", fault="status")[0]["status"] == 503


async def test_status_pages(http: aiohttp.ClientSession) -> None:
    page = "/status/groq/api/v2/summary.json"
    assert (await get(http, page))[1]["status"] == {
        "indicator": "none",
        "description": "All Systems Operational",
    }
    await put(http, "/status/groq", {"indicator": "major", "description": "It rains."})
    assert (await get(http, page))[1]["status"] == {"indicator": "major", "description": "It rains."}
    assert (await get(http, "/status/cartesia/api/v2/summary.json"))[1]["status"]["indicator"] == "none"
    async with http.get("/status/acme/api/v2/summary.json") as response:
        assert response.status == 404


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker.simulator",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


async def test_the_process_says_where_it_listens_and_ends_on_sigterm() -> None:
    process = await start("--port", "0")
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        found = re.fullmatch(r"provider stand-ins listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert found is not None
        async with aiohttp.ClientSession(found[1]) as http:
            assert (await put(http, "/faults/llm/groq", {"fault": "hang"}))[0] == 200
            body = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
            hanging = asyncio.ensure_future(
                http.post("/groq/openai/v1/chat/completions", json=body, headers=KEY)
            )
            voice = await http.ws_connect("/cartesia/tts/websocket", headers={"X-API-Key": "k"})

            async def came() -> bool:
                return bool((await get(http, "/requests?role=llm"))[1]["items"])

            await wait_until(came, "the hanging request has come in")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 20) == 0
            with pytest.raises(aiohttp.ClientError):
                await hanging
            await voice.close()
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_taken_port_is_one_clear_line(sim: SimulatorServer) -> None:
    process = await start("--port", str(sim.port))
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert re.fullmatch(rf"the stand-ins cannot listen on 127\.0\.0\.1:{sim.port}: .+\n", errors.decode())
