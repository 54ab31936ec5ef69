"""The three agents that a drill compares: one LLM, upstream's FallbackAdapter, and ours."""

from __future__ import annotations

from typing import Any, Literal, Self

from livekit.agents import AgentSession
from livekit.agents import llm as lk_llm
from livekit.plugins import groq, openai

from worker.guard.llm import GuardedLLM
from worker.guard.routing import HedgeBudget
from worker.link.embedded import EmbeddedLink
from worker.link.settings import LinkSettings
from worker.recovery import setup_error_handling
from worker.settings import load_settings

Variant = Literal["plain", "upstream", "guarded"]
PRIMARY_MODEL = "llama-3.3-70b-versatile"
SECOND_MODEL = "gpt-4o-mini"
_KEY = "stand-in-key"


class VariantBuilder:
    """Makes each session's LLM; the guarded ones share one link, as the sessions of a container do."""

    def __init__(self, variant: Variant, simulator: str, worker: str) -> None:
        self._variant, self._simulator, self._worker = variant, simulator.rstrip("/"), worker
        self._settings = load_settings()
        self._link: EmbeddedLink | None = None
        self._hedges = HedgeBudget()  # one a process, however many sessions it holds

    async def __aenter__(self) -> Self:
        if self._variant == "guarded":
            self._link = EmbeddedLink(LinkSettings.of(self._settings, agent="drill"))
            await self._link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._link is not None:
            await self._link.aclose()

    def _models(self) -> list[lk_llm.LLM[Any]]:
        # Clients of their own for each session, as an agent that was written without us would have.
        # WORKER_GROQ_BASE_URL breaks the way to the primary for this worker alone.
        primary_url = self._settings.groq_base_url or f"{self._simulator}/groq/openai/v1"
        return [
            groq.LLM(model=PRIMARY_MODEL, base_url=primary_url, api_key=_KEY),
            openai.LLM(model=SECOND_MODEL, base_url=f"{self._simulator}/openai/v1", api_key=_KEY),
        ]

    def llm(self, session: str) -> lk_llm.LLM[Any]:
        """The LLM of one session."""
        models = self._models()
        if self._variant == "plain":
            return models[0]
        if self._variant == "upstream":
            return lk_llm.FallbackAdapter(models)
        assert self._link is not None  # noqa: S101  # entered above
        return GuardedLLM(models, link=self._link, session=session, hedges=self._hedges)

    def guard(self, session: AgentSession[Any]) -> None:
        """Ours also recovers inside the session; the others are left as upstream leaves them."""
        if self._variant == "guarded":
            setup_error_handling(session, link=self._link)
