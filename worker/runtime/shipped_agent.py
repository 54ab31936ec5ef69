"""The agent that runs when no `--agent` is given: a voice assistant over the configured providers."""

from __future__ import annotations

from typing import Any, cast

from livekit.agents import Agent, AgentSession, JobContext, JobProcess
from livekit.agents.types import NOT_GIVEN

from worker.guard.llm import GuardedLLM
from worker.guard.routing import GuardOptions, HedgeBudget, TurnClock
from worker.guard.stt import GuardedSTT
from worker.guard.tts import GuardedTTS
from worker.providers import build_providers, warm_up
from worker.runtime.jobs import link_of
from worker.settings import load_settings


def prewarm(_: JobProcess) -> None:
    """Before the process has a call."""
    warm_up()


async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    settings = load_settings()
    providers = build_providers(settings)
    link, session_id = link_of(ctx), ctx.job.id
    options = GuardOptions(latency_budget_ms=settings.latency_budget_ms, hedge=settings.hedge)
    hedges, turn_clock = HedgeBudget(), TurnClock()
    await ctx.connect()
    turns: Any = {"turn_detection": settings.turn_detection} if settings.turn_detection else NOT_GIVEN
    session = cast("Any", AgentSession)(
        stt=GuardedSTT(providers.stt, link, session=session_id, options=options),
        llm=GuardedLLM(
            providers.llm,
            link=link,
            session=session_id,
            options=options,
            hedges=hedges,
            turns=turn_clock,
            continue_answers=settings.continue_answers,
        ),
        tts=GuardedTTS(
            providers.tts, link, session=session_id, options=options, hedges=hedges, turns=turn_clock
        ),
        vad=providers.vad,
        turn_handling=turns,
    )
    ctx.add_shutdown_callback(providers.aclose)
    await session.start(Agent(instructions=settings.instructions), room=ctx.room)
