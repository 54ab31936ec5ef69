"""The live stream over real HTTP: order, resuming, filters, slow clients, revoked tokens, a Redis that goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Self

import httpx
import pytest

from supervisor.api.stream import response as stream_response
from supervisor.api.stream.hub import MAX_BUFFERED, Client, Cursor, Message
from supervisor.runtime.supervisor import run
from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Event, FaultEvent
from supervisor.wire.vocabulary import FaultKind
from tests.support.api_rig import TARGET, Rig, rig, settings_for
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
async def served(redis_url: str, fleet: str) -> AsyncIterator[str]:
    """The URL of a whole supervisor that serves real HTTP."""
    async with serving(redis_url, fleet) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(redis_url: str, fleet: str) -> AsyncGenerator[str]:
    urls: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings_for(redis_url, fleet, port=0), ready=urls.append, stop=stop))
    try:
        url = await wait_until(lambda: urls[0] if urls else "", "it listens", 10)
        async with httpx.AsyncClient(base_url=url) as http:

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await wait_until(ready, "it is ready", 10)
        yield url
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)


class Listener:
    """One reader of the stream: what came, as (id, name, data line)."""

    def __init__(self, url: str, last_id: str = "", **params: str) -> None:
        self._url = url
        self._headers = {"Last-Event-ID": last_id} if last_id else {}
        self._params = params
        self.events: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.status = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read())
        await wait_until(lambda: self.ids or self.done(), "the stream began")
        return self

    def done(self) -> bool:
        """Whether the stream has ended."""
        return self._task is not None and self._task.done()

    @property
    def error(self) -> BaseException | None:
        """What it ended with."""
        return self._task.exception() if self._task is not None else None

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        async with (
            httpx.AsyncClient(timeout=30) as http,
            http.stream(
                "GET", self._url + "/v1/stream", headers=self._headers, params=self._params
            ) as answer,
        ):
            self.status = answer.status_code
            event_id = name = ""
            async for line in answer.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    event_id = value
                    self.ids.append(value)
                elif field == "event":
                    name = value
                elif field == "data":
                    self.events.append((event_id, name, value))

    def texts(self, name: str) -> list[str]:
        return [data for _, kind, data in self.events if kind == name]


async def _verdict(redis: Any, fleet: str, text: str) -> None:
    event = Event(1_700_000_000_000, "verdict", TARGET, "healthy", "unhealthy", text)
    await redis.xadd(Keys(fleet)("events"), {FIELD: encode(event)})


async def _fault(redis: Any, fleet: str, text: str) -> None:
    fault = FaultEvent(1_700_000_000_000, "w1", "h", TARGET, kind=FaultKind.SERVER, message=text)
    await redis.xadd(Keys(fleet)("faults"), {FIELD: encode(fault)})


async def test_verdicts_and_faults_arrive_and_a_listener_resumes_without_loss_or_repeat(
    served: str, redis_client: Any, fleet: str
) -> None:
    async with Listener(served) as first:
        await _verdict(redis_client, fleet, "one")
        await _fault(redis_client, fleet, "two")
        await redis_client.xadd(Keys(fleet)("faults"), {FIELD: b"\x01unreadable"})
        await wait_until(lambda: first.texts("fault") and first.texts("verdict"), "both arrived")
    assert '"reason":"one"' in first.texts("verdict")[0]
    assert '"fault_kind":"server"' in first.texts("fault")[0]
    last_id = first.events[-1][0]
    for number in range(1_200):  # more than one chunk of catching up, and of both streams
        await (_verdict if number % 2 else _fault)(redis_client, fleet, f"n{number}")
    async with Listener(served, last_id) as second:
        await _verdict(redis_client, fleet, "live")
        await wait_until(lambda: any("live" in text for text in second.texts("verdict")), "caught up", 15)
    numbers = [int(data.partition('"n')[2].partition('"')[0]) for _, _, data in second.events if '"n' in data]
    assert sorted(numbers) == list(range(1_200))
    assert numbers[::2] == sorted(numbers[::2])
    assert len(second.events) == 1_201


async def test_a_listener_gets_the_kinds_it_asked_for_and_its_id_still_moves(
    served: str, redis_client: Any, fleet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_response, "HEARTBEAT_S", 0.1)
    async with Listener(served, kinds="verdict") as listener:
        began = listener.ids[0]
        await _fault(redis_client, fleet, "not for me")
        await wait_until(lambda: listener.ids[-1] != began, "a heartbeat carries the newer id")
        await _verdict(redis_client, fleet, "for me")
        await wait_until(lambda: listener.texts("verdict"), "the verdict")
        assert listener.texts("fault") == []


async def test_an_unknown_last_id_is_a_400_and_a_trimmed_one_is_a_gap(
    served: str, redis_client: Any, fleet: str
) -> None:
    async with httpx.AsyncClient(base_url=served) as http:
        assert (await http.get("/v1/stream", headers={"Last-Event-ID": "nonsense"})).status_code == 400
        assert (await http.get("/v1/stream?kinds=a%20b")).status_code == 422
    await _verdict(redis_client, fleet, "kept")
    async with Listener(served, "1-0_0-0") as listener:
        await wait_until(lambda: listener.texts("verdict"), "what is kept")
        assert len(listener.texts("gap")) == 1


async def test_a_real_verdict_reaches_a_listener(redis_url: str, fleet: str) -> None:
    async with (
        serving(redis_url, fleet) as url,
        Listener(url) as listener,
        httpx.AsyncClient(base_url=url) as http,
        rig(redis_url, fleet, leads=False) as other,
    ):
        await other.worker("w1")
        await other.shown(TARGET)
        body = {"state": "forced_unhealthy", "reason": "test", "ttl_s": 60}
        assert (await http.put(f"/v1/targets/{TARGET}/override", json=body)).status_code == 200
        await wait_until(lambda: any(TARGET in data for _, _, data in listener.events), "an event of it")


async def test_a_slow_client_is_dropped_and_the_others_go_on(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet, leads=False) as face:
        slow, quick = await face.api.hub.join(), await face.api.hub.join()
        assert slow is not None
        assert quick is not None
        got = 0
        for _ in range(2 * MAX_BUFFERED // 100):
            for _ in range(100):
                await _verdict(face.redis, fleet, "x")

            async def hundred() -> bool:
                nonlocal got
                got += len(await quick.take(0.5))
                return got % 100 == 0 and got > 0

            await wait_until(hundred, "the quick one has them")
        assert got == 2 * MAX_BUFFERED
        assert slow.dropped
        assert not quick.dropped
        assert face.context.counters.sse_dropped == 1
        face.api.hub.leave(slow)
        face.api.hub.leave(quick)
        assert face.context.counters.sse_clients == 0


@pytest.mark.no_key_check
async def test_a_redis_that_goes_and_comes_back_empty_ends_no_stream(own_redis: RedisServer) -> None:
    async with rig(own_redis.url, "gone", leads=False) as face:
        listener = await face.api.hub.join()
        assert listener is not None
        await face.append("events", encode(Event(1, "verdict", TARGET, "healthy", "unhealthy", "before")))
        assert len(await listener.take(5)) == 1
        await asyncio.to_thread(own_redis.kill)
        await asyncio.to_thread(own_redis.start)
        await face.append("events", encode(Event(1, "verdict", TARGET, "unhealthy", "healthy", "after")))
        assert b"after" in (await listener.take(15))[-1].data
        assert not listener.dropped


async def test_streams_are_bounded_in_number(
    redis_url: str, fleet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.api.stream.hub.MAX_CLIENTS", 1)
    async with rig(redis_url, fleet, leads=False) as face:
        assert await face.api.hub.join() is not None
        answer = await face.http.get("/v1/stream")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


async def _sent(face: Rig, token: str) -> asyncio.Task[None]:
    async def read() -> None:
        async with face.client(token=token) as client:
            await client.get("/v1/stream")  # ends only when the stream does

    return asyncio.create_task(read())


async def test_a_revoked_token_ends_its_stream(
    redis_url: str, fleet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_response, "HEARTBEAT_S", 0.1)
    async with rig(redis_url, fleet, admin_token="admin-token-of-this-test") as face:
        async with face.client(token="admin-token-of-this-test") as admin:
            made = (await admin.post("/v1/tokens", json={"role": "viewer"})).json()

            async def known() -> bool:
                return await face.api.tokens.principal_of(made["token"]) is not None

            await wait_until(known, "the token is known")
            reading = await _sent(face, made["token"])
            await wait_until(lambda: face.api.hub.clients == 1, "the stream is open")
            await admin.delete(f"/v1/tokens/{made['id']}")
        await asyncio.wait_for(reading, 10)
        assert face.api.hub.clients == 0


async def test_closing_the_hub_ends_every_stream(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet, leads=False) as face:
        reading = await _sent(face, "")
        await wait_until(lambda: face.api.hub.clients == 1, "the stream is open")
        await face.api.hub.close()
        await asyncio.wait_for(reading, 10)


async def test_a_stopping_process_ends_its_streams_in_order(redis_url: str, fleet: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(redis_url, fleet) as url:
            listener = await stack.enter_async_context(Listener(url))
        await wait_until(listener.done, "the stream ended")
        # The end of a chunked answer, not a connection that broke off.
        assert listener.error is None


async def test_a_buffer_gives_in_order_and_says_when_it_is_full() -> None:
    client = Client()
    assert await client.take(0.01) == []
    message = Message(Cursor(), "verdict", b"{}")
    assert all(client.offer(message) for _ in range(MAX_BUFFERED))
    assert not client.offer(message)
    assert client.dropped
    assert await client.take(1) == []
