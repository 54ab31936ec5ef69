"""What a session went through, from the call to the supervisor's page: a real Redis, no link handed in."""

from __future__ import annotations

import pytest

from tests.support.api_rig import rig
from tests.support.sessions import text_call
from tests.support.waiting import wait_until
from worker.settings import read_settings
from worker.simulator import Options, SimulatorServer
from worker.simulator.plugins import groq_llm


@pytest.mark.timeout(60)
async def test_the_report_of_a_session_reaches_the_supervisor(redis_url: str, fleet: str) -> None:
    settings = read_settings(redis_url=redis_url, fleet=fleet)
    async with (
        SimulatorServer(options=Options(answer_words=(3, 3))) as sim,
        rig(redis_url, fleet) as watching,
    ):
        sim.set_fault("llm", "groq", "status", status=500)
        async with text_call(groq_llm(sim.url), settings=settings) as call:
            await wait_until(lambda: call.manager.link.inner is not None, "the link is open", 10)
            await call.ask("Hello?")
        found: list[dict[str, object]] = []

        async def ended() -> bool:
            found[:] = (await watching.get("/v1/sessions", status="ended"))["items"]
            return bool(found)

        await wait_until(ended, "the supervisor has the report", 15)
    (session,) = found
    assert session["id"] == call.manager.session_id
    errors = session["errors"]
    assert isinstance(errors, dict)
    assert errors["llm"]["server"] >= 1
    assert (session["apologies"], session["outcome"]) == (1, "recovered")
