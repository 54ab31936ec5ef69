"""A GuardedLLM over the real Groq and OpenAI plugins and the stand-ins."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from livekit.agents import llm
from livekit.plugins import groq, openai

from tests.support.noted_link import NotedLink
from tests.support.simulated import Reply, ask
from worker.guard.llm import GuardedLLM
from worker.guard.routing import GuardOptions
from worker.providers import Clients
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

FIRST = "llm:groq:llama-3.3-70b-versatile"
SECOND = "llm:openai:gpt-4.1-mini"
QUESTION = "What is there to see in the old harbour?"


@dataclass
class Bench:
    """A guard over two stand-ins."""

    sim: SimulatorServer
    link: NotedLink
    guarded: GuardedLLM
    errors: list[Any]

    async def ask(self, question: str = QUESTION, **kwargs: Any) -> Reply:
        return await ask(self.guarded, ("user", question), **kwargs)

    def asked(self, provider: str) -> int:
        return len(self.sim.requests(role="llm", provider=provider))


@contextlib.asynccontextmanager
async def benched(
    *,
    options: GuardOptions | None = None,
    key: str = "good",
    children: int = 2,
    first_output_ms: int = 5_000,
    **kwargs: Any,
) -> AsyncGenerator[Bench]:
    clients = Clients(verify=False)  # the stand-ins speak plain HTTP
    async with SimulatorServer(options=Options(llm_first_token_s=0.02, llm_token_s=0.002)) as sim:
        plugins: list[llm.LLM[Any]] = [
            groq.LLM(api_key=key, client=clients.sdk(sim.base_url("groq"), key)),
            openai.LLM(model="gpt-4.1-mini", client=clients.sdk(sim.base_url("openai"), "good")),
        ]
        link = NotedLink()
        link.deadlines(FIRST, SECOND, first_output_ms=first_output_ms, stall_ms=5_000)
        guarded = GuardedLLM(plugins[:children], link, session="call-1", options=options, **kwargs)
        errors: list[Any] = []
        guarded.on("error", errors.append)  # pyright: ignore[reportUnknownMemberType] - livekit leaves the event open
        try:
            yield Bench(sim, link, guarded, errors)
        finally:
            await guarded.aclose()
            await clients.aclose()
    assert link.double_ends == 0
    assert all(attempt.end for attempt in link.attempts), "every attempt has an end"
