"""The face against its own description, and the metrics against the exposition format."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.specs.openapi import checks as openapi_checks

from supervisor.runtime.supervisor import run
from tests.support.api_rig import OTHER, TARGET, TTS, rig, settings_for

# A stream has no end, and metrics are no JSON.
SKIPPED = {"/v1/stream", "/metrics"}


# The library types its own checks only in part.
CHECKS = [
    cast("Any", openapi_checks).response_schema_conformance,
    cast("Any", openapi_checks).status_code_conformance,
]
BOUNDED = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture
def served(redis_url: str, fleet: str) -> Iterator[str]:
    """A whole supervisor in a loop of its own thread, since schemathesis calls it without one."""
    urls: list[str] = []
    stops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        stops.append((asyncio.get_running_loop(), stop))
        async with rig(redis_url, fleet, leads=False) as worker:
            serving = asyncio.create_task(
                run(settings_for(redis_url, fleet, port=0), ready=urls.append, stop=stop)
            )
            await worker.worker("w1", TARGET, OTHER, TTS)
            await worker.shown(TARGET, OTHER, TTS)
            await serving

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, serve())
        try:
            while not urls and not done.done():
                with contextlib.suppress(TimeoutError):
                    done.result(0.05)
            yield urls[0]
        finally:
            loop, stop = stops[0]
            loop.call_soon_threadsafe(stop.set)
            done.result(20)


def test_every_answer_is_one_that_the_description_promises(served: str) -> None:
    # Statically typed only in part: schemathesis builds its strategies at run time.
    schema = cast("Any", schemathesis.openapi.from_url(f"{served}/openapi.json"))
    tried: set[str] = set()

    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in SKIPPED:
            continue

        @BOUNDED
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            tried.add(f"{case.method} {case.path}")
            answer = case.call(timeout=10)
            assert answer.status_code < 500 or answer.status_code in {503, 504}, (case.path, answer.text)
            if answer.status_code >= 400 and not case.path.endswith("z"):
                assert answer.headers["content-type"] == ["application/problem+json"], case.path
            case.validate_response(answer, checks=CHECKS)

        check()
    assert len(tried) > 25


async def test_metrics_parse_and_carry_the_fleet(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet) as face:
        await face.worker("w1")
        await face.shown(TARGET)
        text = (await face.http.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        states = {
            sample.labels["state"]: sample.value
            for sample in families["livekit_supervisor_target_state"].samples
            if (sample.labels["provider"], sample.labels["role"]) == ("groq", "llm")
        }
        assert states["healthy"] == 1
        assert sum(states.values()) == 1
        assert len(states) == 6
        values = {name: family.samples[0].value for name, family in families.items() if family.samples}
        assert values["livekit_supervisor_leader"] == 1
        assert values["livekit_supervisor_workers"] == 1
        assert values["livekit_supervisor_redis_up"] == 1
        assert values["livekit_supervisor_reports_folded"] >= 1
        assert values["livekit_supervisor_dead_entries"] == 0
        assert "process_cpu_seconds" in families
        ours = {name for name in families if name.startswith("livekit_supervisor_")}
        assert all(len(family.documentation) > 8 for family in families.values() if family.name in ours)


async def test_metrics_are_open_only_by_setting(redis_url: str, fleet: str) -> None:
    for is_open, status in ((False, 401), (True, 200)):
        made = rig(redis_url, fleet, leads=False, metrics_open=is_open)
        async with made as face, face.client(peer="10.0.0.9") as client:
            assert (await client.get("/metrics")).status_code == status


async def test_the_description_page_needs_nothing_from_elsewhere(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet, leads=False) as face:
        page = await face.http.get("/docs")
        assert page.status_code == 200
        assert "script-src 'nonce-" in page.headers["content-security-policy"]
        assert "http://" not in page.text
        assert "https://" not in page.text
        spec: dict[str, Any] = (await face.http.get("/openapi.json")).json()
        for path in spec["paths"]:
            assert path in page.text
        assert httpx.URL("/v1/targets").path in spec["paths"]
