"""One model's stream while it is read: what is forwarded when, and how it ended.

Text goes out at once but for its last unfinished word (a cut there could not be joined); the very first word
goes out at once, since time to first output is what the caller waits for. Tool calls go out only after the model
has ended well: a forwarded call runs, so it must be whole and must come once.

A `Runner` reads and forwards in one task of its own, so that no piece waits for another task's turn; whether it
may forward at all is decided when its first output comes (`claim`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from livekit.agents import llm

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import provider_of
from worker.guard.routing import Attempt, Stall
from worker.guard.seam import Seam, ends_sentence, split_open

Forward = Callable[[llm.ChatChunk], None]

UNHEARD_STALL_S: Final = 1.2
"""Longest silence, in seconds, while no voice can have begun: a part of the 2.5 s that a caller may wait at all."""
# A voice begins with the first sentence once it sees that another one follows (livekit's tokenizers: 20 characters).
_FIRST_SENTENCE: Final = re.compile(
    r"\S.{18,}?(?:[.!?\u2026]['\")\u00bb]*\s+\S|[\u3002\uff01\uff1f]\s*\S)", re.DOTALL
)


@dataclass(slots=True)
class Said:
    """What the caller may have heard of this answer so far, over all models.

    open_word: the last word may be unfinished, which only happens to the very first one.
    owes_call: a tool call was begun and never came.
    """

    text: str = ""
    open_word: bool = False
    owes_call: bool = False

    @property
    def audible(self) -> bool:
        """Whether enough was said for a voice to begin."""
        return _FIRST_SENTENCE.search(self.text) is not None

    @property
    def whole(self) -> bool:
        """Whether nothing need be missing: a model asked to continue may well have nothing to add."""
        return not self.owes_call and ends_sentence(self.text)


def tool_growth(stream: llm.LLMStream) -> int:
    """How much of a tool call has come in that the plugin does not show yet (0: none is being written).

    A call is shown only when it is whole; until then its arguments would look like silence. Read from the
    OpenAI-compatible streams; other plugins show no growth and are measured by their chunks alone.
    """
    inner = cast("Any", stream)
    if getattr(inner, "_tool_call_id", None) is None and getattr(inner, "_fnc_name", None) is None:
        return 0
    return 1 + len(getattr(inner, "_fnc_raw_arguments", None) or "")


class Relay:
    """Takes chunks, holds back what must wait, forwards the rest."""

    __slots__ = ("_content", "_eager", "_forward", "_held", "_last_id", "_said", "_seam", "_tools", "usage")

    def __init__(self, said: Said, forward: Forward) -> None:
        self._said = said
        self._forward = forward
        self._seam = Seam(said.text, open_word=said.open_word) if said.text.strip() else None
        self._eager = not said.text
        self._held = ""
        self._tools: list[llm.ChatChunk] = []
        self._content = False
        self._last_id = ""
        self.usage: llm.CompletionUsage | None = None

    @property
    def audible(self) -> bool:
        """Whether enough was said for a voice to begin with."""
        return self._said.audible

    @property
    def blank(self) -> bool:
        """Whether nothing of use has come, though something is missing."""
        return not self._content and not self._tools and not self._said.whole

    @property
    def calls(self) -> bool:
        """Whether a tool call waits for the model's end."""
        return bool(self._tools)

    def take(self, chunk: llm.ChatChunk) -> None:
        """The next chunk."""
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
        if delta.content and self._text(delta.content, chunk):
            return
        if not delta.tool_calls and (delta.extra or chunk.usage is not None):
            # A thought's signature, say: it must not wait for words, nor be lost with them.
            self._forward(chunk.model_copy(update={"delta": delta.model_copy(update={"content": None})}))

    def finish(self) -> None:
        """The model has ended well: what was held back goes out, tool calls last."""
        rest = self._seam.end() if self._seam is not None else ""
        self._say(self._held + rest, self._last_id)
        self._held = ""
        for chunk in self._tools:
            self._forward(chunk)

    def _text(self, content: str, chunk: llm.ChatChunk) -> bool:
        """True: the chunk went out as it is."""
        if not content.isspace():
            self._content = True
        if self._eager:
            return self._first(content, chunk)
        if self._seam is not None:
            content = self._seam.push(content)
        ready, self._held = split_open(self._held + content)
        self._say(ready, chunk.id)
        return False

    def _first(self, content: str, chunk: llm.ChatChunk) -> bool:
        text = self._held + content
        if not self._content:
            self._held = text  # white space before the first word
            return False
        self._eager = False
        ready, rest = split_open(text)
        if not ready.strip():
            ready, rest = text, ""
        plain = ready == content and chunk.delta is not None and not chunk.delta.tool_calls
        self._held = rest
        self._said.text = ready
        if plain:
            self._forward(chunk)
        else:
            self._send(ready, chunk.id)
        self._said.open_word = bool(split_open(ready)[1])
        return plain

    def _say(self, text: str, chunk_id: str) -> None:
        if not text:
            return
        self._said.text += text
        self._said.open_word = False
        self._send(text, chunk_id)

    def _send(self, text: str, chunk_id: str) -> None:
        self._forward(llm.ChatChunk(id=chunk_id, delta=llm.ChoiceDelta(role="assistant", content=text)))


class Runner:
    """Reads one child's stream to its end. `woke` is done at its first output or, without one, at its end.

    stalled: done when nothing more came for too long; the stream is being closed then.

    claim: asked once, when the first output is here; a relay means that it won, None that somebody else has.
    """

    def __init__(
        self, attempt: Attempt[llm.LLM[Any]], stream: llm.LLMStream, claim: Callable[[Runner], Relay | None]
    ) -> None:
        self.attempt = attempt
        self.stream = stream
        self.relay: Relay | None = None
        loop = asyncio.get_running_loop()
        self.woke: asyncio.Future[None] = loop.create_future()
        self.stalled: asyncio.Future[None] = loop.create_future()
        self._claim = claim
        self._early: list[llm.ChatChunk] = []
        self._fault: Fault | None = None
        self._dropped = False
        self._grown = 0
        self._stall: Stall | None = None
        self.reading = asyncio.ensure_future(self._read())

    def start_relay(self, relay: Relay) -> None:
        """It won: from here on everything goes through `relay`, and silence is a stall."""
        self.relay = relay
        for chunk in self._early:
            relay.take(chunk)
        self._begun()

    def adds_nothing(self, relay: Relay) -> None:
        """It has ended without a word, and none was missing: that is its answer."""
        self.relay = relay
        for chunk in self._early:
            relay.take(chunk)
        self.attempt.first_output()

    @property
    def calling(self) -> bool:
        """Whether it has begun a tool call."""
        return bool(tool_growth(self.stream)) or (self.relay is not None and self.relay.calls)

    def drop(self) -> None:
        """Nothing more of it may go out."""
        self._dropped = True

    async def close(self) -> None:
        """End the request; to be run in a kept task."""
        self._dropped = True
        await self.stream.aclose()
        await asyncio.wait({self.reading})

    def ended(self, *, expects_usage: bool) -> Fault | None:
        """How it ended; None for a good end, whose rest has gone out then. After `reading` or `stalled`."""
        relay = self.relay
        phase = self.attempt.phase if relay is None else Phase.MID_STREAM
        if self._stall is not None and self._stall.fired:
            return Fault(FaultKind.STALLED, phase=phase)
        if self._fault is not None:
            return self._fault
        usage = relay.usage if relay is not None else next((c.usage for c in self._early if c.usage), None)
        if (expects_usage and usage is None) or tool_growth(self.stream):
            return Fault(FaultKind.CUT, phase=phase)
        if relay is None or relay.blank:
            return Fault(FaultKind.EMPTY, phase=phase)
        relay.finish()
        return None

    async def _read(self) -> None:
        try:
            async for chunk in self.stream:
                if self._dropped:
                    return
                if self.relay is not None:
                    if self._stall is not None:
                        self._stall.touch()
                    self.relay.take(chunk)
                elif self._opens(chunk):
                    relay = self._claim(self)
                    if relay is None:
                        return
                    self.relay = relay
                    for early in self._early:
                        relay.take(early)
                    relay.take(chunk)
                    # The caller has the first piece before anything else is done; a burst is read without a pause.
                    await asyncio.sleep(0)
                    self._begun()
                    self._wake()
        except Exception as exc:  # noqa: BLE001 - whatever a plugin raises is this attempt's fault, by its kind
            self._fault = fault_of(exc, provider_of(self.attempt.child.plugin), self.attempt.phase)
        finally:
            if self._stall is not None:
                self._stall.stop()
            self._wake()

    def _begun(self) -> None:
        self.attempt.first_output()
        # Closing ends the iteration; only this way does the plugin's stream break cleanly.
        self._stall = Stall(self._stall_s, self._close_soon, alive=self._growing)

    def _stall_s(self) -> float:
        heard = self.relay is not None and self.relay.audible
        # A call that may be written out of our sight has the usual time: it is no silence.
        if heard or (self.stream.tools and not hasattr(self.stream, "_fnc_raw_arguments")):
            return self.attempt.stall_s
        return min(self.attempt.stall_s, UNHEARD_STALL_S)

    def _opens(self, chunk: llm.ChatChunk) -> bool:
        """Whether this is the first output; what comes before it is kept."""
        self.attempt.connected()
        delta = chunk.delta
        if delta is not None and (delta.tool_calls or (delta.content and not delta.content.isspace())):
            return True
        self._early.append(chunk)
        return False

    def _wake(self) -> None:
        if not self.woke.done():
            self.woke.set_result(None)

    def _growing(self) -> bool:
        grown = tool_growth(self.stream)
        more = grown > self._grown
        self._grown = grown
        return more

    def _close_soon(self) -> None:
        self.stalled.set_result(None)
        self.attempt.keep(self.stream.aclose())
