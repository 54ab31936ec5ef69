"""The REST face over a real leader and a real Redis, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
from fastapi import FastAPI

from supervisor.api.app import create_app
from supervisor.api.base import Api
from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.supervisor import office, open_context
from supervisor.settings import SupervisorSettings, read_settings
from supervisor.wire.keys import FIELD
from tests.support.reporting import OTHER, TARGET, RawWorker
from tests.support.waiting import wait_until

__all__ = ["OTHER", "TARGET", "Rig", "rig", "settings_for"]

TTS = "tts:groq:canopylabs/orpheus-v1-english"


def settings_for(redis_url: str, fleet: str, **given: object) -> SupervisorSettings:
    """Settings of a test's supervisor: nothing of the environment's own, no checks, and time on a busy machine."""
    fixed = {"redis_url": redis_url, "fleet": fleet, "checks": False, "redis_timeout_s": 10.0}
    return read_settings(**{**fixed, **given})


@dataclass
class Rig:
    """An app with its context, and a client that calls it as this machine would."""

    app: FastAPI
    context: SupervisorContext
    http: httpx.AsyncClient
    workers: dict[str, RawWorker] = field(default_factory=dict[str, RawWorker])

    @property
    def api(self) -> Api:
        return cast("Api", self.app.state.api)

    @property
    def redis(self) -> Any:
        return cast("Any", self.context.redis)

    def client(
        self, *, token: str = "", peer: str = "127.0.0.1", host: str = "127.0.0.1:8080"
    ) -> httpx.AsyncClient:
        """Another client: with a token, from another address, or for another Host."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        transport = httpx.ASGITransport(app=self.app, client=(peer, 40_000), raise_app_exceptions=True)
        return httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers)

    async def worker(self, name: str = "w1", *targets: str) -> RawWorker:
        """A worker that has reported these targets as well and in order."""
        worker = RawWorker(self.context.redis, self.context.keys, name)
        for target in targets or (TARGET, OTHER, TTS):
            worker.ok(target)
        await worker.register()
        await worker.send()
        self.workers[name] = worker
        return worker

    async def append(self, name: str, message: bytes, entry_id: str = "*") -> str:
        """An entry of one of the fleet's streams; its id."""
        found = await self.redis.xadd(self.context.keys(name), {FIELD: message}, id=entry_id)
        return cast("bytes", found).decode()

    async def get(self, path: str, expect: int = 200, /, **params: Any) -> Any:
        """The JSON of a GET, which must have that status."""
        answer = await self.http.get(path, params=params)
        assert answer.status_code == expect, answer.text
        return answer.json()

    async def shown(self, *targets: str) -> list[dict[str, Any]]:
        """The items of `/v1/targets`, as soon as these targets are among them."""

        found: list[dict[str, Any]] = []

        async def there() -> bool:
            answer = await self.http.get("/v1/targets")
            if answer.status_code != 200:
                return False
            found[:] = answer.json()["items"]
            return set(targets) <= {item["id"] for item in found}

        await wait_until(there, f"{targets} in /v1/targets")
        return found


@contextlib.asynccontextmanager
async def rig(
    redis_url: str, fleet: str, *, leads: bool = True, lifespan: bool = False, **given: object
) -> AsyncGenerator[Rig]:
    """The REST face; with `leads` over a real leader, otherwise over a fleet that nobody leads."""
    settings = settings_for(redis_url, fleet, **given)
    async with contextlib.AsyncExitStack() as stack:
        if leads:
            context = await stack.enter_async_context(office(settings))
        else:
            context, _ = open_context(settings)
            stack.push_async_callback(context.redis_blocking.aclose)
            stack.push_async_callback(context.redis.aclose)
        app = create_app(context)
        if lifespan:
            await stack.enter_async_context(app.router.lifespan_context(app))
        else:
            stack.push_async_callback(cast("Api", app.state.api).hub.close)
        made = Rig(app, context, httpx.AsyncClient())
        await made.http.aclose()
        made.http = await stack.enter_async_context(made.client())
        if leads:
            await wait_until(lambda: context.status().is_leader, "the replica leads")
            await wait_until(made.api.records.has_view, "a view")
        yield made
