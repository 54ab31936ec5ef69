"""One recogniser at work: a livekit STT plugin's stream, its events, and what the plugin hides.

The edge to livekit's unknown types: nothing outside this module looks into a plugin's stream. Hidden are
- Cartesia's final transcript on a dropped connection, made up from the last interim one (`withheld`, not truth);
- Cartesia's errors inside the socket below 500, which its plugin only logs;
- of a plugin that does not stream: when it was asked, and an answer without words.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from livekit import rtc
from livekit.agents import APIConnectOptions, stt, vad
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr
from livekit.agents.utils import AudioBuffer

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.classify import classify
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import provider_of, unwrap
from worker.guard.stt_due import Style
from worker.guard.stt_speech_check import Segments

AnySTT = stt.STT[Any]

CHILD_OPTIONS: Final = APIConnectOptions(max_retry=0, timeout=10.0)
_SPOKEN: Final = frozenset(
    {
        stt.SpeechEventType.FINAL_TRANSCRIPT,
        stt.SpeechEventType.INTERIM_TRANSCRIPT,
        stt.SpeechEventType.PREFLIGHT_TRANSCRIPT,
    }
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A plugin that does not stream was handed an utterance."""


@dataclass(frozen=True, slots=True)
class Answered:
    """It answered; `words`: whether there were any."""

    words: bool


EarEvent = stt.SpeechEvent | Asked | Answered


def text_of(event: stt.SpeechEvent) -> str:
    """The transcript of an event, stripped."""
    return event.alternatives[0].text.strip() if event.alternatives else ""


def style_of(plugin: AnySTT) -> Style:
    """How a plugin has to be listened to."""
    if isinstance(plugin, stt.StreamAdapter) or not plugin.capabilities.streaming:
        return Style.REQUEST
    return Style.INTERIM if plugin.capabilities.interim_results else Style.FINAL


class _Watched(stt.STT[Any]):
    """Stands between `StreamAdapter` and a plugin, to know when it is asked and when it answers."""

    def __init__(self, plugin: AnySTT, tell: Callable[[EarEvent], None]) -> None:
        super().__init__(capabilities=plugin.capabilities)
        self._plugin = plugin
        self._tell = tell

    async def _recognize_impl(
        self, buffer: AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError  # abstract upstream; `recognize` below is all that is ever called

    async def recognize(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        self._tell(Asked())
        event = await self._plugin.recognize(buffer, language=language, conn_options=conn_options)
        self._tell(Answered(bool(text_of(event))))
        return event


class EarStream:
    """A running recogniser. `wake` is called in the loop whenever something new can be read.

    offset_s: where its first frame lies on the session's time line. Raises ValueError when a plugin that does not
    stream comes without a VAD.
    """

    def __init__(
        self,
        plugin: AnySTT,
        wake: Callable[[], None],
        *,
        offset_s: float = 0.0,
        language: NotGivenOr[str] = NOT_GIVEN,
        detector: vad.VAD | None = None,
    ) -> None:
        self._provider = provider_of(plugin)
        self._wake = wake
        self.style = style_of(plugin)
        self.events: deque[EarEvent] = deque()
        self.done = False
        self.fault: Fault | None = None
        self.spoke = False
        self._ending = False
        self._true_finals = 0
        self._true_ends = 0
        self._tapped = False
        self._withheld: list[stt.SpeechEvent] = []
        self._segments: Segments | None = None
        self._last: rtc.AudioFrame | None = None
        streamer: AnySTT = plugin
        if self.style is Style.REQUEST:
            own: vad.VAD | None = getattr(plugin, "_vad", None)
            found = own or detector
            if found is None:
                raise ValueError(f"{plugin.label} does not stream; give GuardedSTT a vad")
            watched = _Watched(cast("AnySTT", unwrap(plugin)), self._tell)
            self._segments = Segments(found)
            streamer = stt.StreamAdapter(stt=watched, vad=self._segments)
        self._stream: stt.RecognizeStream | None = None
        self._pump_task: asyncio.Task[None] | None = None
        try:
            self._stream = streamer.stream(language=language, conn_options=CHILD_OPTIONS)
        except Exception as error:  # noqa: BLE001 - a plugin that cannot even begin has failed like any other
            self.fault = fault_of(error, self._provider, Phase.CONNECT)
            self.done = True
            return
        self._stream.start_time_offset = offset_s
        self._tap_cartesia(self._stream)
        self._pump_task = asyncio.create_task(self._pump(self._stream), name="guard.stt.ear")

    @property
    def context(self) -> Any:
        """What the plugin has learnt about the speaker."""
        return self._stream.context if self._stream is not None else None

    def push(self, frame: rtc.AudioFrame) -> None:
        """More sound; nothing happens once the stream is over."""
        stream = self._stream
        if stream is not None and not self.done and not self._ending:
            self._last = frame
            self._quietly(lambda: stream.push_frame(frame))

    def flush(self) -> None:
        """Finish the segment here, if the plugin can."""
        if self._stream is not None and not self.done and not self._ending:
            self._quietly(self._stream.flush)

    def end(self) -> None:
        """No more sound comes."""
        if self._stream is not None and not self.done and not self._ending:
            if self._segments is not None and self._last is not None:
                # A VAD whose input ends in the middle of speech gives nothing of it.
                self.push(_silence_like(self._last, self._segments.silence_s))
            self._ending = True
            # Cartesia's plugin does nothing at all when its input is closed before its task has begun.
            asyncio.get_running_loop().call_soon(self._quietly, self._stream.end_input)

    async def aclose(self) -> None:
        """Break off."""
        if self._stream is None or self._pump_task is None:
            return
        await self._stream.aclose()
        self._pump_task.cancel()
        await asyncio.gather(self._pump_task, return_exceptions=True)

    def _quietly(self, act: Callable[[], None]) -> None:
        try:
            act()
        except RuntimeError:
            # The plugin's stream has just ended; the pump tells why.
            self._ending = True

    def _tell(self, event: EarEvent) -> None:
        self.events.append(event)
        self._wake()

    async def _pump(self, stream: stt.RecognizeStream) -> None:
        try:
            async for event in stream:
                if self._made_up(event):
                    self._withheld.append(event)
                    continue
                self.spoke = self.spoke or event.type in _SPOKEN
                self._tell(event)
            if self._withheld and self.fault is None:
                self.fault = Fault(
                    FaultKind.CUT, message="closed in the middle of speech", phase=self._phase()
                )
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this recogniser's failure
            # Only plain values are kept: the exception holds the request with its key.
            self.fault = self.fault or fault_of(error, self._provider, self._phase())
        finally:
            self.done = True
            self._wake()

    def _phase(self) -> Phase:
        return Phase.MID_STREAM if self.spoke else Phase.CONNECT

    def _made_up(self, event: stt.SpeechEvent) -> bool:
        """Whether the service itself never said that."""
        if not self._tapped:
            return False
        if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
            self._true_finals -= 1
            return self._true_finals < 0
        if event.type is stt.SpeechEventType.END_OF_SPEECH:
            self._true_ends -= 1
            return self._true_ends < 0
        return False

    def _tap_cartesia(self, opened: stt.RecognizeStream) -> None:
        stream = cast("Any", opened)
        process: Callable[[dict[str, Any]], None] | None = getattr(stream, "_process_stream_event", None)
        if process is None or self._provider != "cartesia":
            return
        self._tapped = True

        def tapped(data: dict[str, Any]) -> None:
            kind = data.get("type")
            # A turn that ends without having begun brings no event.
            if (kind == "turn.end" and stream._speaking) or (kind == "transcript" and data.get("is_final")):
                self._true_finals = max(self._true_finals, 0) + 1
                self._true_ends = max(self._true_ends, 0) + 1
            elif kind == "error":
                self._in_band(data)
            process(data)

        stream._process_stream_event = tapped

    def _in_band(self, data: dict[str, Any]) -> None:
        status = data.get("status_code") or data.get("code")
        words = [data.get(name) for name in ("title", "message", "error")]
        self.fault = self.fault or classify(
            self._provider,
            status=status if isinstance(status, int) else 0,
            code=str(data.get("error_code") or ""),
            text=": ".join(word for word in words if isinstance(word, str)),
            request_id=str(data.get("request_id") or ""),
            phase=self._phase(),
        )
        self._wake()


def _silence_like(frame: rtc.AudioFrame, seconds: float) -> rtc.AudioFrame:
    count = int(seconds * frame.sample_rate)
    return rtc.AudioFrame.create(frame.sample_rate, frame.num_channels, count)


async def recognize_once(
    plugin: AnySTT, buffer: AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN
) -> stt.SpeechEvent | Fault:
    """One recording through a plugin, streaming or not: its transcript, or why there is none. Never raises."""
    inner = cast("AnySTT", unwrap(plugin))
    if inner.capabilities.offline_recognize:
        try:
            return await inner.recognize(buffer, language=language, conn_options=CHILD_OPTIONS)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this recogniser's failure
            return fault_of(error, provider_of(inner), Phase.FIRST_OUTPUT)
    news = asyncio.Event()
    ear = EarStream(inner, news.set, language=language)
    try:
        for frame in buffer if isinstance(buffer, list) else [buffer]:
            ear.push(frame)
        ear.end()
        while not ear.done and ear.fault is None:
            await news.wait()
            news.clear()
        if ear.fault is not None:
            return ear.fault
        said = [e for e in ear.events if isinstance(e, stt.SpeechEvent)]
    finally:
        await ear.aclose()
    finals = [e for e in said if e.type is stt.SpeechEventType.FINAL_TRANSCRIPT and e.alternatives]
    if not finals:
        return Fault(FaultKind.EMPTY, message="no transcript came", phase=Phase.FIRST_OUTPUT)
    finals[0].alternatives[0].text = " ".join(text_of(final) for final in finals)
    return finals[0]
