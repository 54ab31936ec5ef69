"""The three agents that the audio drill compares, as `--agent worker.drill.agents:<variant>`.

Same plugins, same settings; what differs is who handles their failures. `plain` and `upstream` run with
WORKER_GUARD=false, so that nothing of ours helps them.
"""

from __future__ import annotations

from typing import Any, cast

from livekit.agents import Agent, AgentSession, JobContext, llm, stt, tts

from worker.providers import Providers, build_providers
from worker.runtime.shipped_agent import entrypoint as guarded
from worker.runtime.shipped_agent import prewarm
from worker.settings import WorkerSettings, load_settings

__all__ = ["guarded", "plain", "prewarm", "upstream"]


async def plain(ctx: JobContext) -> None:
    """The first provider of each role, as livekit's own examples do it."""
    settings = load_settings()
    providers = build_providers(settings)
    first = {
        "stt": providers.stt[0].plugin,
        "llm": providers.llm[0].plugin,
        "tts": providers.tts[0].plugin,
    }
    await _answer(ctx, settings, providers, first)


async def upstream(ctx: JobContext) -> None:
    """Every provider, behind upstream's FallbackAdapters with their defaults."""
    settings = load_settings()
    providers = build_providers(settings)
    adapters = {
        "stt": stt.FallbackAdapter([c.plugin for c in providers.stt], vad=providers.vad),
        "llm": llm.FallbackAdapter([c.plugin for c in providers.llm]),
        "tts": tts.FallbackAdapter([c.plugin for c in providers.tts]),
    }
    await _answer(ctx, settings, providers, adapters)


async def _answer(
    ctx: JobContext, settings: WorkerSettings, providers: Providers, models: dict[str, Any]
) -> None:
    await ctx.connect()
    ctx.add_shutdown_callback(providers.aclose)
    turns = {"turn_detection": settings.turn_detection or "vad"}
    session = cast("Any", AgentSession)(**models, vad=providers.vad, turn_handling=turns)
    await session.start(Agent(instructions=settings.instructions), room=ctx.room)
