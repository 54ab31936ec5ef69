"""The agent's own `on_user_turn_completed`, watched: when it raises or hangs, livekit answers nothing and says nothing.

The hook is wrapped on the agent itself, not guessed at from a turn that gets no answer: an agent that wants none
(`StopResponse`) looks the same from outside, and so does one whose turns are ended by hand.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import structlog
from livekit.agents import Agent, AgentSession, StopResponse

from supervisor.wire.vocabulary import FaultKind
from worker.recovery.handlers import cancelled_by_us
from worker.recovery.options import RecoveryOptions
from worker.recovery.speaker import Speaker

log = structlog.get_logger("worker.recovery")

_NAME = "on_user_turn_completed"


class Told(Protocol):
    """Who is told."""

    def hook_failed(self, kind: FaultKind) -> None: ...


class TurnHook:
    """One session's. `watch()` as often as one likes, before a turn can end; `end()` gives the agents back."""

    def __init__(
        self, told: Told, session: AgentSession[Any], speaker: Speaker, options: RecoveryOptions
    ) -> None:
        self._told, self._session, self._speaker, self._options = told, session, speaker, options
        self._wrapped: list[tuple[Agent, Any]] = []

    def watch(self) -> None:
        """Watch the hook of the agent that has the call now."""
        agent = self._session.current_agent
        if any(agent is known for known, _ in self._wrapped):
            return
        hook = cast("Any", agent).on_user_turn_completed
        if _NAME in vars(agent) or getattr(hook, "__func__", None) is Agent.on_user_turn_completed:
            return  # none of its own, or one that somebody put there for reasons of theirs
        watched = self._watched(hook)
        setattr(agent, _NAME, watched)
        self._wrapped.append((agent, watched))

    def end(self) -> None:
        """The agents are as they were."""
        for agent, watched in self._wrapped:
            if vars(agent).get(_NAME) is watched:
                delattr(agent, _NAME)
        self._wrapped.clear()

    def _watched(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        async def watched(*args: Any, **kwargs: Any) -> Any:
            # In livekit's own task: what the hook says or calls there belongs to the activity that runs it.
            limit = asyncio.timeout(None)
            look: asyncio.TimerHandle | None = None
            loop, patience_s = asyncio.get_running_loop(), self._options.stuck_after_s

            def overdue() -> None:
                nonlocal look
                if self._silent():
                    # Later turns wait behind it: it is ended as livekit ends one that raises.
                    limit.reschedule(loop.time())
                else:
                    look = loop.call_later(patience_s, overdue)

            if patience_s:
                look = loop.call_later(patience_s, overdue)
            try:
                async with limit:
                    return await hook(*args, **kwargs)
            except StopResponse:
                raise
            except (Exception, asyncio.CancelledError) as exc:
                # By livekit, that is; a task that the hook waited for may be cancelled too.
                if cancelled_by_us(exc):
                    raise
                kind = FaultKind.STALLED if limit.expired() else FaultKind.LOCAL
                log.warning(
                    "the agent's own hook failed",
                    action="recovery.hook",
                    hook=_NAME,
                    error=type(exc).__name__,
                )
                self._told.hook_failed(kind)
                raise
            finally:
                if look is not None:
                    look.cancel()

        return watched

    def _silent(self) -> bool:
        session = self._session
        talks = session.agent_state == "speaking" or session.user_state == "speaking"
        return not talks and self._speaker.speaking is None
