"""An existing agent: two agents, a tool, upstream fallbacks. `after.py` is the same with error handling."""

# livekit leaves the types of `start` open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, function_tool, llm, tts

import worker
from worker.providers import build_providers
from worker.settings import load_settings


class Billing(Agent):
    """Takes over for invoices."""

    def __init__(self) -> None:
        super().__init__(instructions="You answer questions about invoices.")


class Reception(Agent):
    """Takes every call."""

    def __init__(self) -> None:
        super().__init__(instructions="You greet callers and find out what they need.")

    @function_tool()
    async def to_billing(self) -> Agent:
        """Hand the caller over to billing."""
        return Billing()


async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    providers = build_providers(load_settings())
    ctx.add_shutdown_callback(providers.aclose)
    session: AgentSession[Any] = AgentSession(
        stt=providers.stt[0].plugin,
        llm=llm.FallbackAdapter([child.plugin for child in providers.llm]),
        tts=tts.FallbackAdapter([child.plugin for child in providers.tts]),
        vad=providers.vad,
    )
    worker.setup_error_handling(session)
    await session.start(Reception(), room=ctx.room)


if __name__ == "__main__":
    logging.getLogger(__name__).info("agent of livekit-supervisor %s", worker.__version__)
    server = AgentServer()
    server.rtc_session(entrypoint)
    cli.run_app(server)
