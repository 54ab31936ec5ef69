"""`GuardedLLM`: one LLM over several, for which a failing model is the next model's turn.

Before the first output it moves on at once; an answer that is cut off is continued by the next model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from livekit.agents import APIConnectOptions, llm
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr

from supervisor.core.decide import Decision
from supervisor.wire.vocabulary import Role
from worker.guard.errors import api_error, no_target
from worker.guard.evidence import watch
from worker.guard.faults import Fault
from worker.guard.listeners import HarmlessListeners
from worker.guard.llm_race import Race
from worker.guard.llm_relay import Relay, Runner, Said
from worker.guard.names import Child, children_of, unwrap
from worker.guard.plugin_face import PluginFace
from worker.guard.probe import offer_probes, probe_llm, probing
from worker.guard.routing import Attempt, Guard, GuardOptions, HedgeBudget, TurnClock
from worker.link.api import Link, Use

CONTINUE = (
    "Your last message was cut off, continue it from exactly where it stopped."
    " Write only what comes next: do not repeat any of it, do not start again, do not mention the interruption."
)
# Hosts whose streams always end with usage when asked for it, as livekit's plugins do.
_ALWAYS_USAGE = ("api.groq.com", "api.openai.com")


class GuardedLLM(PluginFace, HarmlessListeners, llm.LLM[Any]):
    """An LLM over `llms`, best first, as the link's rules allow.

    link: this process's link. session: the call's id (a share of sessions is chosen by it).
    names: index → (provider, model) where a plugin's own names are wrong. hedges: share one per process. turns: share
    one with the session's `GuardedTTS`, so that a turn has one latency budget.
    continue_answers: False ends a cut answer with the error instead.
    The children stay their owner's: `aclose` does not close them.
    """

    def __init__(
        self,
        llms: Sequence[llm.LLM[Any] | Child[llm.LLM[Any]]],
        link: Link,
        *,
        session: str = "",
        session_started_at_ms: int = 0,
        names: Mapping[int, tuple[str, str]] | None = None,
        options: GuardOptions | None = None,
        hedges: HedgeBudget | None = None,
        turns: TurnClock | None = None,
        continue_answers: bool = True,
    ) -> None:
        super().__init__()
        children = children_of(Role.LLM, llms, names=names)
        self.guard: Guard[llm.LLM[Any]] = Guard(
            Role.LLM,
            children,
            link,
            session=session,
            session_started_at_ms=session_started_at_ms,
            options=options,
        )
        self.hedges = hedges or HedgeBudget()
        self.turns = turns or TurnClock()
        self.continue_answers = continue_answers
        self.expects_usage = {child.target: _always_sends_usage(child.plugin) for child in children}
        self._active = children[0]
        self._stops: list[Callable[[], None]] = [offer_probes(self.guard, probe_llm)]
        for child in children:
            self._stops.append(watch(child.plugin))
            _emitter(child.plugin).on("metrics_collected", self._on_metrics)

    @property
    def model(self) -> str:
        """The model that would be asked now."""
        return self._next().plugin.model

    @property
    def provider(self) -> str:
        """The provider that would be asked now."""
        return self._next().plugin.provider

    @property
    def metrics_metadata(self) -> Any:
        """Of the child that answered last."""
        return self._active.plugin.metrics_metadata

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> GuardedLLMStream:
        """As `llm.LLM.chat`. `conn_options.max_retry` is not used: retries are the guard's own."""
        return GuardedLLMStream(
            self,
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
            kwargs={
                "parallel_tool_calls": parallel_tool_calls,
                "tool_choice": tool_choice,
                "extra_kwargs": extra_kwargs,
            },
        )

    def prewarm(self, *, loop: Any = None) -> None:
        """Open the connections of the two best: the second is needed when nobody has time for a handshake."""
        for child in self.guard.route()[:2]:
            child.plugin.prewarm(loop=loop)

    async def aclose(self) -> None:
        """Let go of children and link; requests still running are given up."""
        await super().aclose()
        for child in self.guard.children:
            _emitter(child.plugin).off("metrics_collected", self._on_metrics)
        for stop in self._stops:
            stop()
        self._stops.clear()
        await self.guard.aclose()

    def answered(self, child: Child[llm.LLM[Any]], *, usage: bool) -> None:
        """For the stream: this child gave an answer, with or without its usage."""
        self._active = child
        if usage:
            self.expects_usage[child.target] = True

    def _next(self) -> Child[llm.LLM[Any]]:
        return next(iter(self.guard.route()), self.guard.children[0])

    def _on_metrics(self, *args: Any, **kwargs: Any) -> None:
        if not probing.get():  # what a probe uses is none of the call's
            self.emit("metrics_collected", *args, **kwargs)


class GuardedLLMStream(llm.LLMStream):
    """One guarded answer."""

    _llm_request_span_name: ClassVar[str] = "llm_guarded"
    # As for upstream's fallback: the children's request spans nest under ours and own the operation.
    _llm_attempt_span_name: ClassVar[str | None] = None
    _genai_operation_name: ClassVar[str | None] = None

    def __init__(
        self,
        guarded: GuardedLLM,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool],
        conn_options: APIConnectOptions,
        kwargs: dict[str, Any],
    ) -> None:
        # The session's retries must not wrap the routing.
        own = APIConnectOptions(max_retry=0, timeout=conn_options.timeout, retry_interval=0.0)
        super().__init__(cast("Any", guarded), chat_ctx=chat_ctx, tools=tools, conn_options=own)  # pyright: ignore[reportUnknownMemberType]  # LLM's event type parameter is open in livekit
        self._guarded = guarded
        self._kwargs = kwargs

    async def _run(self) -> None:
        guarded = self._guarded
        turn = guarded.guard.turn()
        said = Said()
        decision: Decision | None = None
        while True:
            race = Race(
                guarded.guard,
                turn,
                lambda child, attempt: self._open(child, attempt, said.text),
                lambda: Relay(said, self._event_ch.send_nowait),
                hedges=guarded.hedges,
                expects_usage=guarded.expects_usage,
            )
            runner = await race.run(decision)
            if runner is None:
                raise api_error(turn.faults[-1][1]) if turn.faults else no_target(Role.LLM)
            turn.begin_answer(guarded.turns)
            fault = await self._finish(runner)
            if fault is None:
                return
            goes_on = bool(said.text.strip()) and guarded.continue_answers
            said.owes_call = said.owes_call or runner.calling
            if said.audible:
                turn.restart_budget()
            decision = turn.fail(runner.attempt, fault, continuing=goes_on)
            if said.text.strip() and not goes_on:
                raise api_error(fault)

    async def _finish(self, runner: Runner) -> Fault | None:
        """Wait until the winner's stream has ended; None after a good end."""
        guarded, child = self._guarded, runner.attempt.child
        try:
            # (Not for a stalled stream to be closed: that may take its time.)
            await asyncio.wait({runner.reading, runner.stalled}, return_when=asyncio.FIRST_COMPLETED)
            fault = runner.ended(expects_usage=guarded.expects_usage[child.target])
            if fault is None:
                usage = runner.relay.usage if runner.relay is not None else None
                runner.attempt.succeeded(Use(tokens=usage.total_tokens if usage else 0))
                guarded.answered(child, usage=usage is not None)
            return fault
        except BaseException:
            # The caller spoke or hung up while it was answering: nobody's fault.
            runner.attempt.abandoned()
            raise
        finally:
            runner.drop()
            guarded.guard.keep(runner.close())

    def _open(self, child: Child[llm.LLM[Any]], attempt: Attempt[llm.LLM[Any]], said: str) -> llm.LLMStream:
        snapshot = attempt.snapshot
        # Longer than our own deadlines, which know the difference between late and stalled.
        timeout_s = max(snapshot.first_output_ms, snapshot.stall_ms) / 1000 * 1.5 + 1.0
        return child.plugin.chat(
            chat_ctx=_continued(self._chat_ctx, said) if said.strip() else self._chat_ctx,
            tools=self._tools,
            conn_options=APIConnectOptions(max_retry=0, retry_interval=0.0, timeout=timeout_s),
            **self._kwargs,
        )

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[llm.ChatChunk]) -> None:
        # The children report their own metrics, which are passed on: ours would count everything twice.
        async for _ in event_aiter:
            pass


def _continued(chat_ctx: llm.ChatContext, said: str) -> llm.ChatContext:
    """The conversation with the partial answer in it and the wish to go on; the original stays as it is."""
    copy = chat_ctx.copy()
    copy.add_message(role="assistant", content=said.rstrip())
    copy.add_message(role="system", content=CONTINUE)
    return copy


def _emitter(plugin: llm.LLM[Any]) -> Any:
    """The plugin without its event types, which livekit leaves open."""
    return plugin


def _always_sends_usage(plugin: llm.LLM[Any]) -> bool:
    client = cast("Any", getattr(unwrap(plugin), "_client", None))
    return any(host in str(getattr(client, "base_url", "")) for host in _ALWAYS_USAGE)
