"""Probes of language models, and GuardedLLM in a real session."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest
from livekit.agents import Agent, AgentSession
from livekit.plugins import groq

from supervisor.wire.messages import Directive
from supervisor.wire.vocabulary import DirectiveKind, FaultKind, Role
from tests.support.noted_link import NotedLink
from tests.support.simulated import ask
from tests.support.waiting import wait_until
from worker.guard.llm import GuardedLLM
from worker.guard.probe import PROBE_MARK, probe_llm
from worker.link.api import ProbeHandler
from worker.providers import Clients, build_providers
from worker.settings import read_settings
from worker.simulator.answers import answer_for
from worker.simulator.ledger import PROBE_MARK as STAND_IN_MARK
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

TARGET = "llm:groq:llama-3.3-70b-versatile"


@contextlib.asynccontextmanager
async def model() -> AsyncGenerator[tuple[SimulatorServer, groq.LLM]]:
    clients = Clients(verify=False)
    async with SimulatorServer(options=Options(llm_first_token_s=0.02, llm_token_s=0.001)) as sim:
        yield sim, groq.LLM(api_key="good", client=clients.sdk(sim.base_url("groq"), "good"))
        await clients.aclose()


async def test_a_good_probe_is_a_whole_request_and_known_for_one() -> None:
    async with model() as (sim, plugin):
        probed = await probe_llm(plugin, 10_000)
        assert probed.fault is None
        assert 0 < probed.first_output_ms <= probed.total_ms
        (request,) = sim.requests()
        assert request["probe"] is True
    assert PROBE_MARK == STAND_IN_MARK


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"fault": "hang"}, FaultKind.FIRST_OUTPUT_TIMEOUT),
        ({"fault": "status", "status": 503}, FaultKind.OVERLOADED),
        ({"fault": "status", "status": 401}, FaultKind.AUTHENTICATION),
        ({"fault": "cut", "after_chunks": 2}, FaultKind.CUT),
        ({"fault": "empty"}, FaultKind.EMPTY),
        ({"fault": "refuse"}, FaultKind.CONNECT),
    ],
    ids=lambda value: str(value) if isinstance(value, FaultKind) else "",
)
async def test_a_bad_probe_says_why(fault: dict[str, object], kind: FaultKind) -> None:
    async with model() as (sim, plugin):
        sim.set_fault("llm", "groq", fault)
        probed = await probe_llm(plugin, 300 if kind is FaultKind.FIRST_OUTPUT_TIMEOUT else 5_000)
        assert probed.fault is not None
        assert probed.fault.kind is kind


async def test_a_model_that_never_ends_its_answer_fails_its_probe() -> None:
    async with model() as (sim, plugin):
        sim.stand.options = Options(llm_first_token_s=0.01, llm_token_s=30.0)
        probed = await probe_llm(plugin, 1_500)
        assert probed.fault is not None
        assert probed.fault.kind is FaultKind.STALLED


class ProbingLink(NotedLink):
    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[tuple[Role, ProbeHandler]] = []

    def on_probe(self, role: Role, handler: ProbeHandler) -> Callable[[], None]:
        self.handlers.append((role, handler))
        return lambda: self.handlers.remove((role, handler))


async def test_the_link_can_ask_a_guard_for_a_probe() -> None:
    async with model() as (_, plugin):
        link = ProbingLink()
        guarded = GuardedLLM([plugin], link)
        metrics: list[Any] = []
        cast("Any", guarded).on("metrics_collected", metrics.append)
        told: list[Any] = []
        cast("Any", plugin).on("metrics_collected", told.append)
        ((role, handler),) = link.handlers
        directive = Directive("d1", DirectiveKind.PROBE, 1, 1, 2, target=TARGET, budget_ms=2_000)
        result = await handler(directive)
        assert role is Role.LLM
        assert (result.directive, result.target, result.fault) == ("d1", TARGET, None)
        assert link.attempts == [], "a probe is no attempt of a call"
        await wait_until(lambda: told, "the plugin told what the probe used")
        assert metrics == [], "nor is it the call's usage"
        await ask(guarded, ("user", "Hello?"))
        await wait_until(lambda: metrics, "a call's usage is told")
        other = await handler(Directive("d2", DirectiveKind.PROBE, 1, 1, 2, target="llm:x:y"))
        assert other.fault is FaultKind.LOCAL
        await guarded.aclose()
        assert link.handlers == []


async def test_a_session_speaks_through_the_fallback_and_sees_no_error() -> None:
    async with SimulatorServer(options=Options(llm_first_token_s=0.01, llm_token_s=0.001)) as sim:
        made = build_providers(read_settings(simulator_url=sim.url))
        link = NotedLink()
        guarded = GuardedLLM(made.llm, link, session="call-7")
        errors: list[Any] = []
        session = cast("Any", AgentSession(llm=guarded))
        async with session:
            session.on("error", errors.append)
            await session.start(Agent(instructions="Be brief."))
            sim.set_fault("llm", "groq", "cut", after_chunks=5)
            result = await session.run(user_input="Where is the harbour?")
            text = " ".join(
                str(getattr(event.item, "text_content", ""))
                for event in result.events
                if event.type == "message"
            )
        assert text.split() == answer_for("Where is the harbour?").split()
        assert errors == []
        assert [target for target, _ in link.ends()][:2] == [made.llm[0].target, made.llm[1].target]
        await guarded.aclose()
        await made.aclose()
