"""The smallest agent of its own with error handling: `python -m worker.examples.minimal console`."""

# livekit leaves the types of `start` open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli

from worker import setup_error_handling
from worker.examples.services import services


async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    session: AgentSession[Any] = AgentSession(**services(ctx))
    manager = setup_error_handling(session, max_retries=3)

    async def say_how_it_went() -> None:
        print(f"Session errors: {manager.get_error_stats()}")  # noqa: T201  # an example shows it where it is run

    ctx.add_shutdown_callback(say_how_it_went)
    await session.start(Agent(instructions="You are a friendly voice assistant."), room=ctx.room)


if __name__ == "__main__":
    server = AgentServer()
    server.rtc_session(entrypoint)
    cli.run_app(server)
