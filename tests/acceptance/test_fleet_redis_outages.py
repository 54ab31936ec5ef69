"""Redis freezes, dies, comes back empty and is emptied while calls run: no call notices, and all converge after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from supervisor.wire.targets import escape_path
from tests.support.fleet_rig import PRIMARY_ID, SECOND_ID, FleetRig, fleet_rig, now_ms
from tests.support.redis_server import RedisServer, sync_client
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

# How long the world goes on without Redis; more than a leader's lease, a probe's interval and every timeout.
AWAY_S = 10.0
# 11 of 10: slow is no fault here; the machine may be busy.
POLICY = {"run_base": 7, "slow_of_ten": 11}


async def test_no_call_notices_a_redis_that_freezes_dies_or_is_emptied(own_redis: RedisServer) -> None:
    async with fleet_rig(own_redis.url, ("a", "b"), sessions=3) as fleet, watched(fleet) as seen:
        # An override that everybody must go on obeying, and numbers of an operator's own.
        await put(fleet, f"/v1/targets/{escape_path(PRIMARY_ID)}/override",
                  state="forced_unhealthy", reason="maintenance", ttl_s=3600)  # fmt: skip
        await put(fleet, "/v1/policies/role:llm", values=POLICY, reason="calmer")
        await obeyed(fleet, PRIMARY_ID, "forced_unhealthy")
        begun_ms = now_ms()

        own_redis.freeze()
        await turns_go_on(fleet, AWAY_S)
        own_redis.thaw()
        await converges(fleet)

        own_redis.kill()
        await turns_go_on(fleet, AWAY_S / 3)
        assert await asked(fleet, begun_ms) == 0, "the override was forgotten for a while"
        # A worker that comes now finds neither Redis nor strategy: it answers its calls with the defaults.
        await fleet.add_worker("c", 3, 1.0)
        await fleet.all_talk(1)
        own_redis.start()  # and it has forgotten everything
        await converges(fleet)
        together_ms = now_ms()

        with sync_client(own_redis.url) as client:
            client.flushall()
        await turns_go_on(fleet, AWAY_S / 3)
        await converges(fleet)

        assert await asked(fleet, together_ms) == 0, "not everybody obeys the override"
        assert fleet.complaints(begun_ms, longest_s=3.0) == []
        assert await fleet.items("/v1/incidents") == []
    assert seen == {(PRIMARY_ID, "healthy"), (SECOND_ID, "healthy")}, "a verdict came from the gap"


@asynccontextmanager
async def watched(fleet: FleetRig) -> AsyncGenerator[set[tuple[str, str]]]:
    """Every state that REST ever showed while the block ran."""
    seen: set[tuple[str, str]] = set()

    async def look() -> None:
        while True:
            seen.update((str(t["id"]), str(t["state"])) for t in await fleet.items("/v1/targets"))
            await asyncio.sleep(0.2)

    task = asyncio.create_task(look())
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def put(fleet: FleetRig, path: str, **body: Any) -> None:
    answer = await fleet.set_.api.put(path, json=body)
    assert answer.status_code == 200, f"{answer.text}\n{fleet.logs()}"


async def turns_go_on(fleet: FleetRig, seconds: float) -> None:
    """For so long, every session goes on getting answers (what they waited is judged in the end)."""
    from_ms = now_ms()

    def talking() -> bool:
        late = {t["session"] for t in fleet.turns(from_ms + int(seconds * 1000)) if t["first_s"] is not None}
        return len(late) >= sum(fleet.sessions.values())

    await wait_until(talking, f"every session is answered after {seconds} s", seconds + 20, every_s=0.2)


async def asked(fleet: FleetRig, since_ms: int) -> int:
    """How often callers' turns went to the primary, which the override forbids."""
    return sum(not r["probe"] for r in await fleet.requests(PRIMARY_ID, since=since_ms))


async def converges(fleet: FleetRig) -> None:
    """Supervisor ready, all workers there, and a change made now reaches them; the old ones are still there."""

    async def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await fleet.set_.api.get("/readyz")).status_code == 200
        return False

    await wait_until(ready, "the supervisor is ready again", 20, every_s=0.1)

    async def kept() -> bool:
        return (await fleet.target()).get("override") == "forced_unhealthy"

    await wait_until(kept, "the override is there", 20, every_s=0.1)
    policy = await fleet.set_.get("/v1/policies/role:llm")
    assert policy["values"] == POLICY
    state = "forced_healthy" if (await fleet.target(SECOND_ID))["override"] is None else None
    path = f"/v1/targets/{escape_path(SECOND_ID)}/override"
    if state:
        await put(fleet, path, state=state, reason="converges?", ttl_s=3600)
    else:
        assert (await fleet.set_.api.delete(path)).status_code == 204
    await obeyed(fleet, SECOND_ID, state)


async def obeyed(fleet: FleetRig, target: str, override: str | None) -> None:
    """Wait until REST shows the override and every worker acknowledges a strategy with it."""

    async def shown() -> int:
        item = await fleet.target(target)
        return item["revision"] if item and item["override"] == override else 0

    await fleet.all_obey(await wait_until(shown, f"override {override} is shown", 10, every_s=0.1))
