"""Sound of one's own for when the voice is gone: `worker make-audio --text "…" --out sorry.ogg` makes such a file."""

# livekit leaves the types of `start` open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli

from worker import ErrorRecoveryManager
from worker.examples.services import services

# Here the shipped English recording stands for a file of yours.
SORRY = Path(__file__).parent.parent / "recovery" / "recordings" / "en.apology.ogg"


async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    session: AgentSession[Any] = AgentSession(**services(ctx))
    # A file that cannot be played is an error here, before anybody is on the line.
    manager = ErrorRecoveryManager(
        max_retries=5, custom_audio_path=os.environ.get("SORRY_AUDIO", SORRY), own_voice=False
    )
    manager.attach(session)
    await session.start(Agent(instructions="You are a friendly voice assistant."), room=ctx.room)


if __name__ == "__main__":
    server = AgentServer()
    server.rtc_session(entrypoint)
    cli.run_app(server)
