"""The examples' services: bare livekit plugins, as an agent that knows nothing of error handling has them."""

from __future__ import annotations

from typing import Any

from livekit.agents import JobContext, llm

from worker.providers import build_providers
from worker.settings import load_settings


def services(ctx: JobContext) -> dict[str, Any]:
    """`stt`, `llm`, `tts` and `vad` for an AgentSession, from the settings; closed when the job ends."""
    providers = build_providers(load_settings())
    ctx.add_shutdown_callback(providers.aclose)
    return {
        "stt": providers.stt[0].plugin,
        "llm": providers.llm[0].plugin,
        "tts": providers.tts[0].plugin,
        "vad": providers.vad,
    }


def second_llm(ctx: JobContext) -> llm.LLM[Any]:
    """The language model of the next provider in the settings; closed when the job ends."""
    providers = build_providers(load_settings())
    ctx.add_shutdown_callback(providers.aclose)
    return providers.llm[-1].plugin
