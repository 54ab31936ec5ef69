"""Probes: a minimal real request to one target, run to its end, beside the call and never on the caller's turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from livekit.agents import APIConnectOptions, llm
from livekit.agents.types import NOT_GIVEN

from supervisor.wire.messages import Directive, ProbeResult
from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import provider_of, unwrap
from worker.guard.routing import Guard

P = TypeVar("P")

PROBE_MARK = "livekit-supervisor-probe"
_PROMPT = "Reply with the single word: ready"

probing: ContextVar[bool] = ContextVar("probing", default=False)
"""Set while a probe runs, in its tasks too: a plugin's metrics of it are not the call's usage."""


@dataclass(frozen=True, slots=True)
class Probed:
    """How a probe ended; `fault` None is a good one. Times in milliseconds from its start."""

    fault: Fault | None
    first_output_ms: int = 0
    total_ms: int = 0


Probe = Callable[[P, int], Awaitable[Probed]]


def offer_probes(guard: Guard[P], probe: Probe[P]) -> Callable[[], None]:
    """Run probes that the link asks for with this guard's own children. Returns the way to stop."""

    async def handle(directive: Directive) -> ProbeResult:
        probed = await _run(guard, probe, directive)
        fault = probed.fault
        return ProbeResult(
            worker=guard.link.worker,
            directive=directive.id,
            target=directive.target,
            fault=fault.kind if fault else None,
            first_output_ms=probed.first_output_ms,
            total_ms=probed.total_ms,
            status=fault.status if fault else 0,
            message=fault.message if fault else "",
            retry_after_ms=fault.retry_after_ms if fault else 0,
        )

    return guard.link.on_probe(guard.role, handle)


async def _run(guard: Guard[P], probe: Probe[P], directive: Directive) -> Probed:
    try:
        child = guard.child(directive.target)
    except KeyError:
        return Probed(Fault(FaultKind.LOCAL, message="this process does not hold the target"))
    mark = probing.set(True)
    try:
        return await probe(child.plugin, directive.budget_ms)
    except Exception as exc:  # noqa: BLE001 - a probe that breaks is a result like any other
        return Probed(fault_of(exc, provider_of(child.plugin), Phase.CONNECT))
    finally:
        probing.reset(mark)


async def probe_llm(plugin: llm.LLM[Any], budget_ms: int) -> Probed:
    """Ask for one word and read the answer to its end. Budget: milliseconds for all of it.

    Not limited to one token: reasoning models fail on that while they are well.
    """
    chat_ctx = llm.ChatContext.empty()
    chat_ctx.add_message(role="user", content=_PROMPT)
    began = time.monotonic()
    stream = plugin.chat(
        chat_ctx=chat_ctx,
        tools=[],
        conn_options=APIConnectOptions(max_retry=0, retry_interval=0.0, timeout=budget_ms / 1000 + 1.0),
        # So that a provider's log (or a stand-in's) tells probes from calls.
        extra_kwargs={"user": PROBE_MARK} if _takes_user(plugin) else NOT_GIVEN,
    )
    seen = _Seen(began)
    reading = asyncio.ensure_future(seen.read(stream))
    try:
        await asyncio.wait({reading}, timeout=budget_ms / 1000)
        if not reading.done():
            kind = FaultKind.STALLED if seen.first_ms else FaultKind.FIRST_OUTPUT_TIMEOUT
            return seen.ended(Fault(kind, phase=seen.phase))
        exc = reading.exception()
        if exc is not None:
            return seen.ended(fault_of(exc, provider_of(plugin), seen.phase))
        return seen.ended(None if seen.first_ms else Fault(FaultKind.EMPTY, phase=Phase.FIRST_OUTPUT))
    finally:
        await stream.aclose()
        await asyncio.wait({reading})


class _Seen:
    def __init__(self, began_mono: float) -> None:
        self._began_mono = began_mono
        self.first_ms = 0

    @property
    def phase(self) -> Phase:
        return Phase.MID_STREAM if self.first_ms else Phase.FIRST_OUTPUT

    async def read(self, stream: llm.LLMStream) -> None:
        async for chunk in stream:
            if not self.first_ms and chunk.delta is not None and (chunk.delta.content or "").strip():
                self.first_ms = self._now_ms()

    def ended(self, fault: Fault | None) -> Probed:
        return Probed(fault, self.first_ms, self._now_ms())

    def _now_ms(self) -> int:
        return max(1, int((time.monotonic() - self._began_mono) * 1000))


def _takes_user(plugin: llm.LLM[Any]) -> bool:
    return provider_of(unwrap(plugin)) in {"openai", "groq"}
