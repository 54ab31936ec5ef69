"""A provider breaks while calls run: the fleet finds out together, callers hear nothing of it, and it comes back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.support.fleet_rig import PRIMARY, PRIMARY_ID, SECOND_ID, FleetRig, fleet_rig, now_ms
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]


async def test_a_hanging_llm_is_found_out_left_alone_probed_and_taken_back(own_redis: RedisServer) -> None:
    async with fleet_rig(own_redis.url, ("a", "b")) as fleet:
        await fleet.state_is("healthy")
        before = (await fleet.target())["revision"]
        broken_ms = now_ms()
        await fleet.set_.set_fault(*PRIMARY, {"fault": "hang"})
        item = await fleet.state_is("unhealthy", "probing")
        dead = [r for r in await fleet.requests(since=broken_ms) if not r["probe"]]
        revision = item["revision"]
        assert revision > before
        await fleet.all_obey(revision)

        # Everybody obeys: from here on the primary gets probes alone, and one at a time.
        obeyed_ms = now_ms()

        await wait_until(
            lambda: _asked(fleet, broken_ms, 2, probes=True), "two probes went out", 40, every_s=0.2
        )
        after = [r for r in await fleet.requests(since=obeyed_ms) if not r["probe"]]
        assert after == [], "calls still went to a condemned target"
        assert (await fleet.target())["state"] in {"unhealthy", "probing"}

        mended_ms = now_ms()
        await fleet.set_.set_fault(*PRIMARY, {"fault": "ok"})
        await fleet.state_is("ramping", within_s=40)
        await fleet.state_is("healthy", within_s=60)
        ramped = [r for r in await fleet.requests(since=mended_ms) if not r["probe"]]
        seen = [r for r in await fleet.requests(since=broken_ms) if r["probe"]]
        assert overlapping(seen) == []
        assert ramped, "healthy without ever having been asked"
        # Eight turns a second: six seconds of them. A verdict takes one to three (`supervisor drill` measures it), and
        # on a machine that is busy with other tests twice as long.
        assert len(dead) <= 48
        assert fleet.complaints(broken_ms, longest_s=5.0) == []
        assert (await fleet.target(SECOND_ID))["state"] == "healthy"


async def _asked(fleet: FleetRig, since_ms: int, least: int, *, probes: bool) -> bool:
    found = await fleet.requests(since=since_ms)
    return sum(r["probe"] is probes for r in found) >= least


def overlapping(requests: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Which of them (by number) were under way together; one that has not ended is under way until now."""
    spans = sorted((r["at"], r["ended_at"] or now_ms(), r["number"]) for r in requests)
    return [(one[2], other[2]) for one, other in itertools.combinations(spans, 2) if other[0] < one[1]]


async def test_a_worker_with_a_broken_network_takes_nothing_from_the_others(own_redis: RedisServer) -> None:
    closed = f"http://127.0.0.1:{free_port()}/v1"

    def env_of(worker: str) -> dict[str, str]:
        return {"WORKER_GROQ_BASE_URL": closed} if worker == "d" else {}

    begun_ms = now_ms()
    async with fleet_rig(own_redis.url, ("a", "b", "c", "d"), sessions=3, env_of=env_of) as fleet:

        async def flagged() -> str:
            workers = {w["id"]: w for w in await fleet.items("/v1/workers")}
            return str(workers["d"]["flagged"] or "") if "d" in workers else ""

        why = await wait_until(flagged, "the broken worker is flagged", 30, every_s=0.2)
        assert "elsewhere" in why
        workers = {w["id"]: w for w in await fleet.items("/v1/workers")}
        assert {name: w["bad_on"] for name, w in workers.items()} == {
            "a": [],
            "b": [],
            "c": [],
            "d": [PRIMARY_ID],
        }
        assert (await fleet.target())["state"] == "healthy"
        assert await fleet.items("/v1/incidents") == []
        assert fleet.complaints(begun_ms, longest_s=5.0) == []
        seen_ms = now_ms()
        await wait_until(
            lambda: _asked(fleet, seen_ms, 5, probes=False), "the others still use it", 15, every_s=0.1
        )
