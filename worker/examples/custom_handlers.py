"""Handlers of one's own: watch every error, other words for a rate limit, a person for a dead language model."""

# livekit leaves the types of `start` open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import logging
from typing import Any

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, cli, llm

from worker import setup_error_handling
from worker.examples.services import second_llm, services
from worker.recovery import RecoveryEvent

log = logging.getLogger("my-agent")


class Colleague(Agent):
    """Takes the call over, with a language model of another provider: the first one is why it is needed."""

    def __init__(self, model: llm.LLM[Any]) -> None:
        super().__init__(instructions="Ask for a good time to call back, and say goodbye.", llm=model)

    async def on_enter(self) -> None:
        self.session.say("Hello, I am a colleague. When may we call you back?")


async def entrypoint(ctx: JobContext) -> None:
    """Answer one call."""
    session: AgentSession[Any] = AgentSession(**services(ctx))

    def to_a_person(session: AgentSession[Any]) -> Agent:
        # Called when too many errors have come in a row. An Agent that is returned takes the call over.
        log.warning("handing over a call", extra={"agent_state": session.agent_state})
        return Colleague(second_llm(ctx))

    manager = setup_error_handling(
        session, max_retries={"llm": 2, "rate_limit": 5}, on_exhausted="transfer", transfer=to_a_person
    )
    manager.fallback_messages["llm"] = [
        "Let me think about that again. What was your question?",
        "I did not follow. Could you put it another way?",
    ]

    @manager.on("error")
    def watch(event: RecoveryEvent) -> None:
        log.info("a service failed", extra={"role": event.role.value, "kind": event.kind.value})

    @manager.on("rate_limit")
    async def busy(event: RecoveryEvent) -> str:
        if event.count == 1:
            return "We are very busy right now. Please ask me again."
        return "Thank you for your patience, we are still very busy. Please ask me once more."

    @manager.on("stt")
    def not_heard(event: RecoveryEvent) -> None:
        if event.count == 0:  # speech without words that no service can be blamed for: a cough, perhaps
            event.ignore()

    await session.start(Agent(instructions="You are a friendly voice assistant."), room=ctx.room)


if __name__ == "__main__":
    server = AgentServer()
    server.rtc_session(entrypoint)
    cli.run_app(server)
