"""One voice at work: a livekit TTS plugin's stream, fed with text, its audio and times as they come.

The edge to livekit's unknown types: nothing outside this module looks into a plugin's stream. A plugin that
streams with word times is used as it is; any other one speaks sentence by sentence through `tts.StreamAdapter`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, tokenize, tts
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    USERDATA_TIMED_TRANSCRIPT,
    NotGivenOr,
    TimedString,
)
from livekit.agents.utils import is_given

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.evidence import fault_of
from worker.guard.faults import Fault
from worker.guard.names import unwrap
from worker.guard.tts_track import Pcm, Timed

AnyTTS = tts.TTS[Any]

CHILD_TIMEOUT_S: Final = 30.0
"""The plugins' own timeout, also between texts of a slow language model: the guard's deadlines are the real ones."""
CHILD_OPTIONS: Final = APIConnectOptions(max_retry=0, timeout=CHILD_TIMEOUT_S)


def speaks_words(plugin: AnyTTS) -> bool:
    """Whether the plugin streams and gives a time for every word."""
    capabilities = plugin.capabilities
    return (
        capabilities.streaming
        and capabilities.aligned_transcript
        and not isinstance(plugin, tts.StreamAdapter)
    )


def language_of(plugin: AnyTTS) -> str:
    """The language a plugin is set to; "" when it does not say."""
    return str(getattr(getattr(unwrap(plugin), "_opts", None), "language", None) or "")


class Heard:
    """A frame with the timed pieces that came with it, or (`sentence`) the beginning of the next sentence."""

    __slots__ = ("pcm", "pieces", "sentence")

    def __init__(self, pcm: Pcm, pieces: list[Timed], sentence: str = "") -> None:
        self.pcm = pcm
        self.pieces = pieces
        self.sentence = sentence


class _Converter:
    """Makes frames what the plugin has declared: livekit fixes rate and channels when a plugin is made, and some
    services change them all the same (another model, another telephone codec)."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._from_rate = rate
        self._resampler: rtc.AudioResampler | None = None

    def convert(self, frame: rtc.AudioFrame) -> Pcm:
        """Interleaved samples at the declared rate."""
        pcm = np.frombuffer(frame.data, np.int16)
        if frame.num_channels != self._channels:
            pcm = _channels(pcm, frame.num_channels, self._channels)
        before = np.zeros(0, np.int16)
        if frame.sample_rate != self._from_rate:
            before = self.flush()
            self._from_rate = frame.sample_rate
            if frame.sample_rate != self._rate:
                self._resampler = rtc.AudioResampler(
                    frame.sample_rate, self._rate, num_channels=self._channels
                )
        if self._resampler is not None:
            same = rtc.AudioFrame(
                pcm.tobytes(), frame.sample_rate, self._channels, len(pcm) // self._channels
            )
            pcm = _joined(self._resampler.push(same))
        return np.concatenate([before, pcm])

    def flush(self) -> Pcm:
        """What a resampler still has in it; another one is made when it is needed."""
        resampler, self._resampler = self._resampler, None
        return _joined(resampler.flush() if resampler is not None else [])


class _Sentences(tts.TTS[Any]):
    """Stands between `StreamAdapter` and a plugin to learn which sentence is being spoken."""

    class Markup(tts.TTS.Markup):
        def _provider_key(self) -> str:
            markup: Any = cast("Any", self)._tts.plugin.markup
            return cast("str", markup._provider_key())

    def __init__(self, plugin: AnyTTS, begun: Callable[[str], None]) -> None:
        super().__init__(
            capabilities=plugin.capabilities, sample_rate=plugin.sample_rate, num_channels=plugin.num_channels
        )
        self.plugin = plugin
        self._expressive = bool(getattr(plugin, "_expressive", False))
        self._begun = begun
        self._now: tts.ChunkedStream | None = None

    @property
    def busy(self) -> bool:
        """Whether a sentence has been asked for and is not complete."""
        return self._now is not None and not self._now.done

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        self._begun(text)
        self._now = self.plugin.synthesize(text, conn_options=conn_options)
        return self._now


def _own_tokenizer(plugin: AnyTTS) -> NotGivenOr[tokenize.SentenceTokenizer]:
    """How the user's own `tts.StreamAdapter` cuts text, where it was told how."""
    adapter = cast("Any", plugin)
    if not isinstance(plugin, tts.StreamAdapter) or not adapter._explicit_tokenizer:
        return NOT_GIVEN
    return cast("tokenize.SentenceTokenizer", adapter._sentence_tokenizer)


class VoiceStream:
    """A running voice. `wake` is called in the loop whenever something new can be read.

    sent_mono: when text was last handed to the service (0.0: never). audio_mono: when audio last came.
    """

    def __init__(
        self, plugin: AnyTTS, provider: str, wake: Callable[[], None], *, times: bool = True
    ) -> None:
        """times: False for a plugin that promises word times and does not give them."""
        self._provider = provider
        self._wake = wake
        self.words = times and speaks_words(plugin)
        self.heard: deque[Heard] = deque()
        self.sent_mono = 0.0
        self.audio_mono = 0.0
        self.ended_mono = 0.0
        self.pushed = False
        self.done = False
        self.fault: Fault | None = None
        self._sentences: _Sentences | None = None
        speaker: AnyTTS = plugin
        if not self.words:
            wrapped: Any = (
                getattr(plugin, "_wrapped_tts", plugin) if isinstance(plugin, tts.StreamAdapter) else plugin
            )
            self._sentences = _Sentences(cast("AnyTTS", wrapped), self._sentence_begun)
            speaker = tts.StreamAdapter(tts=self._sentences, sentence_tokenizer=_own_tokenizer(plugin))
        self._converter = _Converter(plugin.sample_rate, plugin.num_channels)
        self._stream = speaker.stream(conn_options=CHILD_OPTIONS)
        self._tap_sent()
        self._pump_task = asyncio.create_task(self._pump(), name="guard.tts.voice")

    @property
    def reused_socket(self) -> bool:
        """Whether the plugin spoke over a pooled connection that it had opened before."""
        return bool(getattr(self._stream, "_connection_reused", False))

    @property
    def busy(self) -> bool | None:
        """Whether a sentence is being made; None when the plugin does not tell."""
        return self._sentences.busy if self._sentences is not None else None

    def push(self, text: str) -> None:
        """More text to say."""
        self.pushed = True
        self._stream.push_text(text)

    def end(self) -> None:
        """No more text comes."""
        if not self.ended_mono:
            self.ended_mono = time.monotonic()
            self._stream.end_input()

    async def aclose(self) -> None:
        """Break off."""
        await self._stream.aclose()
        self._pump_task.cancel()
        await asyncio.gather(self._pump_task, return_exceptions=True)

    def _fault(self, error: Exception) -> Fault:
        # livekit's own word for a stream that ended without audio; it quotes the text, which must not get out.
        if isinstance(error, APIError) and error.message.startswith("no audio frames were pushed"):
            return Fault(FaultKind.EMPTY, message="ended without audio", phase=Phase.FIRST_OUTPUT)
        return fault_of(error, self._provider, self._phase())

    def _phase(self) -> Phase:
        if self.audio_mono:
            return Phase.MID_STREAM
        return Phase.FIRST_OUTPUT if self.sent_mono else Phase.CONNECT

    def _tap_sent(self) -> None:
        """`_mark_started` is called by plugins for every text they hand over: the only sign of it there is."""
        stream = cast("Any", self._stream)
        mark: Callable[[], None] = stream._mark_started

        def marked() -> None:
            mark()
            self.sent_mono = time.monotonic()
            self._wake()

        stream._mark_started = marked

    def _sentence_begun(self, text: str) -> None:
        self.heard.append(Heard(np.zeros(0, np.int16), [], text))
        self._wake()

    async def _pump(self) -> None:
        try:
            async for event in self._stream:
                self.audio_mono = time.monotonic()
                self.heard.append(Heard(self._converter.convert(event.frame), _pieces(event.frame)))
                self._wake()
            if len(rest := self._converter.flush()):
                self.heard.append(Heard(rest, []))
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is this voice's failure
            # Only plain values are kept: the exception holds the request with its key.
            self.fault = self._fault(error)
        finally:
            self.done = True
            self._wake()


def _pieces(frame: rtc.AudioFrame) -> list[Timed]:
    pieces: list[Timed] = []
    for text in cast("list[Any]", frame.userdata.get(USERDATA_TIMED_TRANSCRIPT) or ()):
        if isinstance(text, TimedString):
            start = text.start_time if is_given(text.start_time) else 0.0
            pieces.append(Timed(str(text), start, text.end_time if is_given(text.end_time) else None))
    return pieces


def _joined(frames: list[rtc.AudioFrame]) -> Pcm:
    return np.concatenate([np.zeros(0, np.int16), *(np.frombuffer(frame.data, np.int16) for frame in frames)])


def _channels(pcm: Pcm, have: int, want: int) -> Pcm:
    """Every wanted channel is the mean of those there are."""
    mono = pcm.reshape(-1, have).astype(np.int32).mean(axis=1).astype(np.int16)
    return np.repeat(mono, want)
