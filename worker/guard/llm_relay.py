"""From the first output to the end of one model's stream: what is forwarded when, and how the stream ended.

Text goes out at once but for its last unfinished word (a cut there could not be joined); the very first piece
goes out whole, since time to first output is what the caller waits for. Tool calls go out only after the model
has ended well: a forwarded call runs, so it must be whole and must come once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from livekit.agents import llm

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.llm_race import Runner, tool_growth
from worker.guard.names import provider_of
from worker.guard.routing import Guard, Stall
from worker.guard.seam import Seam, split_open

Forward = Callable[[llm.ChatChunk], None]


@dataclass(slots=True)
class Said:
    """What the caller may have heard of this answer so far, over all models."""

    text: str = ""
    # Only the very first piece goes out with its last word unfinished.
    open_word: bool = False


class Relay:
    """Forwards one runner's stream. `run` gives None after a good end, else the fault."""

    def __init__(self, guard: Guard[llm.LLM[Any]], runner: Runner, said: Said, forward: Forward) -> None:
        self._guard = guard
        self._runner = runner
        self._said = said
        self._forward = forward
        self._seam = Seam(said.text, open_word=said.open_word) if said.text.strip() else None
        self._eager = not said.text
        self._held = ""
        self._tools: list[llm.ChatChunk] = []
        self._content = False
        self._last_id = ""
        self._grown = 0
        self.usage = runner.usage

    async def run(self, *, expects_usage: bool) -> Fault | None:
        """Read to the end. Every fault but our own cancellation comes back as a value."""
        runner = self._runner
        attempt = runner.attempt
        stall = Stall(attempt.stall_s, self._stalled, alive=self._growing)
        fault: Fault | None = None
        try:
            for chunk in runner.early:
                self._take(chunk)
            first = runner.chunk if runner.chunk is not None else await runner.pull
            if first is not None:
                stall.touch()
                self._take(first)
                async for chunk in runner.stream:
                    stall.touch()
                    self._take(chunk)
        except Exception as exc:  # noqa: BLE001 - whatever a plugin raises is this attempt's fault, told by its kind
            fault = fault_of(exc, provider_of(attempt.child.plugin), Phase.MID_STREAM)
        finally:
            stall.stop()
        if stall.fired:
            return Fault(FaultKind.STALLED, phase=Phase.MID_STREAM)
        return fault or self._ended(expects_usage=expects_usage)

    def _ended(self, *, expects_usage: bool) -> Fault | None:
        if (expects_usage and self.usage is None) or tool_growth(self._runner.stream):
            return Fault(FaultKind.CUT, phase=Phase.MID_STREAM)
        if not self._content and not self._tools:
            return Fault(FaultKind.EMPTY, phase=Phase.MID_STREAM)
        rest = self._seam.end() if self._seam is not None else ""
        self._say(self._held + rest, self._last_id)
        self._held = ""
        for chunk in self._tools:
            self._forward(chunk)
        return None

    def _take(self, chunk: llm.ChatChunk) -> None:
        self._last_id = chunk.id or self._last_id
        if chunk.usage is not None:
            self.usage = chunk.usage
        delta = chunk.delta
        if delta is None:
            self._forward(chunk)
            return
        if delta.tool_calls:
            rest = delta.model_copy(update={"content": None})
            self._tools.append(llm.ChatChunk(id=chunk.id, delta=rest, usage=chunk.usage))
        if delta.content:
            self._text(delta.content, chunk)
        elif not delta.tool_calls and (delta.extra or chunk.usage is not None):
            self._forward(chunk)

    def _text(self, content: str, chunk: llm.ChatChunk) -> None:
        if not content.isspace():
            self._content = True
        if self._eager and self._content:
            self._eager = False
            self._said.text = self._held + content
            self._said.open_word = bool(split_open(self._said.text)[1])
            if not self._held and chunk.delta is not None and not chunk.delta.tool_calls:
                self._forward(chunk)
            else:
                self._send(self._said.text, chunk.id)
            self._held = ""
            return
        if self._seam is not None:
            content = self._seam.push(content)
        text = self._held + content
        if self._eager:
            self._held = text  # white space before the first word
            return
        ready, self._held = split_open(text)
        self._say(ready, chunk.id)

    def _say(self, text: str, chunk_id: str) -> None:
        if not text:
            return
        self._said.text += text
        # Anything after the first piece ends in a finished word.
        self._said.open_word = False
        self._send(text, chunk_id)

    def _send(self, text: str, chunk_id: str) -> None:
        self._forward(llm.ChatChunk(id=chunk_id, delta=llm.ChoiceDelta(role="assistant", content=text)))

    def _growing(self) -> bool:
        grown = tool_growth(self._runner.stream)
        more = grown > self._grown
        self._grown = grown
        return more

    def _stalled(self) -> None:
        # Closing ends the iteration; only this way does the plugin's stream break cleanly.
        self._guard.keep(_close(self._runner))


async def _close(runner: Runner) -> None:
    await runner.stream.aclose()
    if not runner.pull.done():
        await asyncio.wait({runner.pull})
