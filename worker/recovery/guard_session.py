"""Puts guards over everything a session uses: its own and its agents' LLM, STT and TTS, at any time.

A bare plugin becomes a guard with one child (deadlines, counts, probes), an upstream FallbackAdapter gives its
children to a guard, realtime models are left alone. Rule: livekit's private attributes are changed in this file alone,
and tests/contract/test_recovery_livekit.py fails when an upgrade moves them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

import structlog
from livekit.agents import Agent, AgentSession, llm, stt, tts
from livekit.agents.utils import is_given

from supervisor.wire.vocabulary import Role
from worker.guard.llm import GuardedLLM
from worker.guard.routing import GuardOptions, HedgeBudget, TurnClock
from worker.guard.stt import GuardedSTT
from worker.guard.tts import GuardedTTS
from worker.link.api import Link
from worker.recovery.observed_link import ObservedLink

log = structlog.get_logger("worker.recovery")

AnyGuard = GuardedLLM | GuardedSTT | GuardedTTS

# Words still on their way when the caller falls silent are heard within this time (measured: 0.2 to 1.2 s).
QUIET_BEFORE_SWAP_S: Final = 1.5
_SLOTS: Final = {Role.LLM: "_llm", Role.STT: "_stt", Role.TTS: "_tts"}
_CHILDREN: Final = {
    llm.FallbackAdapter: "_llm_instances",
    stt.FallbackAdapter: "_stt_instances",
    tts.FallbackAdapter: "_tts_instances",
}

# By event loop, and gone with it: what all sessions of a process share, without a lifetime to manage.
_hedges: WeakKeyDictionary[asyncio.AbstractEventLoop, HedgeBudget] = WeakKeyDictionary()


def children_inside(component: Any) -> list[Any]:
    """The plugins behind a component: an upstream FallbackAdapter's own, in order; else itself."""
    for adapter, attribute in _CHILDREN.items():
        if isinstance(component, adapter):
            inner = cast("list[Any]", getattr(component, attribute))
            return [leaf for child in inner for leaf in children_inside(child)]
    return [component]


def _shared_hedges() -> HedgeBudget:
    """One budget for all sessions of an event loop: it bounds what a process may send twice. Its own without a loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return HedgeBudget()
    return _hedges.setdefault(loop, HedgeBudget())


def need_loop() -> asyncio.AbstractEventLoop:
    """The running one. Raises RuntimeError with what to do."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "error handling of a running session must be set up in the session's event loop"
        ) from None


class SessionGuard:
    """The guards of one session. `install()` once; `release()` when the session has closed.

    Installed on a running session it swaps LLM and TTS at once, the STT when the caller is silent.
    voices: how `GuardedTTS` chooses among voices, by the names of its arguments.
    """

    def __init__(
        self,
        session: AgentSession[Any],
        link: ObservedLink,
        *,
        session_id: str,
        started_at_ms: int,
        options: GuardOptions | None = None,
        continue_answers: bool = True,
        voices: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.session = session
        self.link = link
        self._id = session_id
        self._started_at_ms = started_at_ms
        self._options = options
        self._continue = continue_answers
        self._voices = voices
        self._hedges = _shared_hedges()
        self._turns = TurnClock()
        self._made: dict[int, tuple[Any, AnyGuard]] = {}
        self._restore: list[tuple[Any, str, Any, Any]] = []
        self._adopted: list[tuple[AnyGuard, Link]] = []
        self._refused: dict[int, Any] = {}  # held, so that no other component gets its number
        self._stt_timer: asyncio.TimerHandle | None = None
        self._installed = False
        self.voice_changed: Callable[[], None] = lambda: None

    @property
    def guards(self) -> list[AnyGuard]:
        """Those in use, session's and agents'."""
        return [guard for _, guard in self._made.values()]

    def guard_of(self, role: Role) -> AnyGuard | None:
        """The guard that serves a role now: the agent's own, else the session's."""
        component = self.component(role)
        return component if isinstance(component, GuardedLLM | GuardedSTT | GuardedTTS) else None

    def component(self, role: Role) -> Any:
        """What serves a role now, guarded or not (None: nothing)."""
        slot = _SLOTS[role]
        agent = cast("Any", getattr(self.session, "_agent", None))
        if agent is not None and is_given(own := getattr(agent, slot)):
            return own
        return getattr(self.session, slot)

    def plugin(self, role: Role) -> Any:
        """The plugin that a role has first (None: nothing)."""
        guard = self.guard_of(role)
        return guard.guard.children[0].plugin if guard is not None else self.component(role)

    def install(self) -> None:
        """Guard what is there now and whatever agents bring later. Doing it again changes nothing."""
        if self._installed:
            return
        self._installed = True
        for event, handler in self._listeners():
            cast("Any", self.session).on(event, handler)
        if getattr(self.session, "_activity", None) is None:
            for role in _SLOTS:
                self._swap(self.session, role)
            return
        self._guard_running()

    def agent(self, agent: Agent) -> None:
        """Guard an agent's own components, before it is started."""
        for role in _SLOTS:
            self._swap(agent, role)

    def reset_stt(self) -> bool:
        """Give the session a fresh recogniser stream. False when there is none, or nothing runs.

        A guard with somebody left to ask asks them instead: a fresh stream would know nothing of what was said.
        """
        component = self.component(Role.STT)
        if component is None or getattr(self.session, "_activity", None) is None:
            return False
        if isinstance(component, GuardedSTT) and component.overdue():
            return True
        agent = cast("Any", self.session.current_agent)
        if agent._stt is not component:
            # It becomes the agent's own: an agent that is used again must not begin with a guard that was let go.
            self._restore.append((agent, "_stt", agent._stt, component))
        agent.update_options(stt=component)
        return True

    def restore(self) -> None:
        """Put back what was there before."""
        if self._stt_timer is not None:
            self._stt_timer.cancel()
        for event, handler in self._listeners():
            with contextlib.suppress(Exception):
                cast("Any", self.session).off(event, handler)
        for owner, slot, before, guard in reversed(self._restore):
            if getattr(owner, slot, None) is guard:
                setattr(owner, slot, before)
        self._restore.clear()
        for adopted, theirs in self._adopted:
            if adopted.guard.link is self.link:
                adopted.guard.link = theirs
        self._adopted.clear()
        self._installed = False

    async def release(self) -> None:
        """The same, and let go of link and plugins (they stay their owners'). Guards of the user's stay open."""
        self.restore()
        made = [guard for component, guard in self._made.values() if guard is not component]
        self._made.clear()
        for guard in made:
            await guard.aclose()

    # ------------------------------------------------------------------ inside

    def _listeners(self) -> tuple[tuple[str, Callable[[Any], None]], ...]:
        return (
            ("conversation_item_added", self._on_item),
            ("user_state_changed", self._on_user_state),
            ("speech_created", self._on_speech),
        )

    def _guard_running(self) -> None:
        agent = self.session.current_agent
        for role in (Role.LLM, Role.TTS):
            self._swap_running(agent, role)
        self._swap_stt_when_quiet()

    def _swap_running(self, agent: Agent, role: Role) -> None:
        slot = _SLOTS[role]
        now = self.component(role)
        guard = self._guarded(role, now)
        if guard is not None and guard is not now:
            self._restore.append((agent, slot, getattr(agent, slot), guard))
            # The way upstream itself takes on a running agent: it moves the session's listeners too.
            cast("Any", agent).update_options(**{role.value: guard})
        self._swap(self.session, role)

    def _swap(self, owner: Any, role: Role) -> None:
        slot = _SLOTS[role]
        now = getattr(owner, slot, None)
        guard = self._guarded(role, now)
        if guard is None or guard is now:
            return
        self._restore.append((owner, slot, now, guard))
        setattr(owner, slot, guard)

    def _guarded(self, role: Role, component: Any) -> AnyGuard | None:
        if component is None or not is_given(component) or id(component) in self._refused:
            return None
        if isinstance(component, llm.RealtimeModel):
            return None
        if isinstance(component, GuardedLLM | GuardedSTT | GuardedTTS):
            self._adopt(component)
            return component
        known = self._made.get(id(component))
        if known is not None:
            return known[1]
        try:
            guard = self._make(role, component)
        except ValueError as exc:
            self._refused[id(component)] = component
            log.warning(
                "service is not guarded",
                action="recovery.not_guarded",
                role=role.value,
                reason=type(exc).__name__,
            )
            return None
        _keep_listeners(component, guard)
        self._made[id(component)] = (component, guard)
        return guard

    def _make(self, role: Role, component: Any) -> AnyGuard:
        plugins = children_inside(component)
        common: dict[str, Any] = {
            "session": self._id,
            "session_started_at_ms": self._started_at_ms,
            "options": self._options,
        }
        if role is Role.LLM:
            return GuardedLLM(
                plugins,
                self.link,
                continue_answers=self._continue,
                hedges=self._hedges,
                turns=self._turns,
                **common,
            )
        guard: GuardedSTT | GuardedTTS
        if role is Role.STT:
            detector = self.session.vad
            guard = GuardedSTT(plugins, self.link, detector=detector, **common)
        else:
            guard = GuardedTTS(
                plugins, self.link, hedges=self._hedges, turns=self._turns, **self._voices, **common
            )
        guard.owns_plugins = False
        return guard

    def _adopt(self, guard: AnyGuard) -> None:
        """A guard that the user built: its attempts are noted for the session as well."""
        if id(guard) in self._made:
            return
        self._made[id(guard)] = (guard, guard)
        theirs = guard.guard.link
        if theirs is self.link:
            return
        self._adopted.append((guard, theirs))
        # Another session's observer would note this session's faults: only the link behind it is of use.
        inner = theirs.inner if isinstance(theirs, ObservedLink) else theirs
        if inner is not None:
            self.link.attach(inner)
        guard.guard.link = self.link

    def _on_item(self, event: Any) -> None:
        if getattr(event.item, "type", "") != "agent_handoff":
            self._look_again()
            return
        # Emitted when the new agent is chosen and before it starts: what is set now is what it starts with.
        try:
            self.agent(self.session.current_agent)
            self.voice_changed()
        except Exception as exc:  # noqa: BLE001 - an unguarded agent is better than a hand-off that fails
            log.error("agent is not guarded", action="recovery.agent_not_guarded", error=type(exc).__name__)

    def _on_speech(self, event: Any) -> None:
        del event
        self._look_again()  # before the reply asks its model

    def _on_user_state(self, event: Any) -> None:
        self._look_again()
        if self._stt_timer is None:
            return
        self._stt_timer.cancel()
        if event.new_state != "speaking":
            self._swap_stt_when_quiet()

    def _look_again(self) -> None:
        """`update_options` gave the agent another model in the call: it gets a guard too."""
        if getattr(self.session, "_activity", None) is None:
            return
        try:
            agent = self.session.current_agent
            for role in (Role.LLM, Role.TTS):
                if self._is_bare(self.component(role)):
                    self._swap_running(agent, role)
                    if role is Role.TTS:
                        self.voice_changed()
            if self._stt_timer is None and self._is_bare(self.component(Role.STT)):
                self._swap_stt_when_quiet()
        except Exception as exc:  # noqa: BLE001 - the call goes on with what it has
            log.error("model is not guarded", action="recovery.not_guarded", error=type(exc).__name__)

    def _is_bare(self, component: Any) -> bool:
        if component is None or id(component) in self._refused or isinstance(component, llm.RealtimeModel):
            return False
        return all(component is not guard for guard in self.guards)

    def _swap_stt_when_quiet(self) -> None:
        now = self.component(Role.STT)
        if now is None or isinstance(now, GuardedSTT):
            self._stt_timer = None
            if now is not None:
                self._adopt(now)
            self._swap(self.session, Role.STT)
            return
        loop = asyncio.get_running_loop()
        self._stt_timer = loop.call_later(QUIET_BEFORE_SWAP_S, self._swap_stt)

    def _swap_stt(self) -> None:
        if self.session.user_state == "speaking" or getattr(self.session, "_activity", None) is None:
            return  # the caller's next silence starts the timer again
        self._stt_timer = None
        try:
            self._swap_running(self.session.current_agent, Role.STT)
        except Exception as exc:  # noqa: BLE001 - the call goes on with what it has
            log.error("STT is not guarded", action="recovery.not_guarded", error=type(exc).__name__)


def guard_session(
    session: AgentSession[Any],
    link: ObservedLink,
    *,
    session_id: str,
    started_at_ms: int,
    options: GuardOptions | None = None,
    continue_answers: bool = True,
) -> SessionGuard:
    """Guard a session now; see `SessionGuard`. Without a word about errors: `setup_error_handling` adds those."""
    guard = SessionGuard(
        session,
        link,
        session_id=session_id,
        started_at_ms=started_at_ms,
        options=options,
        continue_answers=continue_answers,
    )
    guard.install()
    return guard


def listen_first(session: AgentSession[Any], event: str, handler: Callable[[Any], None]) -> None:
    """Listen before everybody who listens already: livekit lets one handler's TypeError keep an event from the rest."""
    emitter = cast("Any", session)
    emitter.on(event, handler)
    others = cast("dict[Callable[..., Any], None]", emitter._events[event])
    for other in [each for each in others if each is not handler]:
        del others[other]
        others[other] = None


def _keep_listeners(component: Any, guard: AnyGuard) -> None:
    """An adapter is not asked any more: who listened to its errors listens to the guard's."""
    if children_inside(component) == [component]:
        return  # a plugin goes on emitting its own
    handlers = cast("dict[str, dict[Callable[..., Any], None]]", getattr(component, "_events", {}))
    for handler in handlers.get("error", {}):
        cast("Any", guard).on("error", handler)
