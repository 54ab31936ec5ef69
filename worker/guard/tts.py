"""`GuardedTTS`: one voice for the session, made of several text-to-speech plugins.

A voice is kept until it fails or a verdict takes it away, and then the next one until the call ends: callers
notice a changing voice more than a second-best one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import structlog
from livekit.agents import APIConnectionError, APIConnectOptions, APIError, tts, utils
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS

from supervisor.core.admission import Route
from supervisor.wire.vocabulary import Role
from worker.guard.errors import api_error, no_target
from worker.guard.evidence import watch
from worker.guard.faults import Fault
from worker.guard.listeners import HarmlessListeners
from worker.guard.names import Child, children_of, unwrap
from worker.guard.plugin_face import PluginFace
from worker.guard.probe import offer_probes, probing
from worker.guard.routing import Guard, GuardOptions, HedgeBudget, TurnClock
from worker.guard.tts_probe import probe_tts
from worker.guard.tts_speech import Speech
from worker.guard.tts_try import TtsChild
from worker.guard.tts_voice import AnyTTS, language_of
from worker.guard.voices import VoiceTable, is_known, put_back, take_voice_of, voice_id_of
from worker.link.api import Link

log = structlog.stdlib.get_logger("worker.guard")


class _VoiceGuard(Guard[AnyTTS]):
    """Routes as `Guard` does, but the voice that the caller knows goes first while it is admitted."""

    voice: str | None = None

    def picture(self) -> Route:
        route = super().picture()
        if self.voice is None or route.panic or self.voice not in route.targets:
            return route
        return Route((self.voice, *(t for t in route.targets if t != self.voice)), route.panic)


class GuardedTTS(PluginFace, HarmlessListeners, tts.TTS[Any]):
    """Several voices behind one face.

    plugins: livekit TTS plugins in the order wanted (any mix of streaming and chunked, any sample rates), or
    `Child`s; they stay their owner's, but for their voice until `aclose` (`match_voices`). sticky: keep the
    voice that spoke last. match_voices: give the next plugin a voice of the same gender and language where both
    are known (`voices` adds to the table). hedges: share one per process. turns: share one with the session's
    `GuardedLLM`. sample_rate: of what comes out, in Hz; 0: the highest of the plugins.
    Raises ValueError without plugins or when their channels differ.
    """

    owns_plugins = False

    def __init__(
        self,
        plugins: Sequence[AnyTTS | Child[AnyTTS]],
        link: Link,
        *,
        session: str = "",
        session_started_at_ms: int = 0,
        options: GuardOptions | None = None,
        names: Mapping[int, tuple[str, str]] | None = None,
        hedges: HedgeBudget | None = None,
        turns: TurnClock | None = None,
        sample_rate: int = 0,
        sticky: bool = True,
        match_voices: bool = True,
        voices: VoiceTable | None = None,
    ) -> None:
        children = children_of(Role.TTS, plugins, names=names)
        if not children:
            raise ValueError("at least one tts plugin is needed")
        if len({child.plugin.num_channels for child in children}) != 1:
            raise ValueError("all tts plugins must have the same number of channels")
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True, aligned_transcript=True),
            sample_rate=sample_rate or max(child.plugin.sample_rate for child in children),
            num_channels=children[0].plugin.num_channels,
        )
        self._guard = _VoiceGuard(
            Role.TTS,
            children,
            link,
            session=session,
            session_started_at_ms=session_started_at_ms,
            options=options,
        )
        self.hedges = hedges or HedgeBudget()
        self.turns = turns or TurnClock()
        self._sticky = sticky
        self._match_voices = match_voices
        self._voices = voices
        # Target and language that promised word times and gave none.
        self._untimed: set[tuple[str, str]] = set()
        self._own_voices: dict[str, tuple[str, str]] = {}  # by target: its own voice, and the one it took
        self._spoke_last = children[0]
        self._stops: list[Callable[[], None]] = [offer_probes(self._guard, probe_tts)]
        self._listens = True
        for child in children:
            self._stops.append(watch(unwrap(child.plugin)))
            cast("Any", child.plugin).on("metrics_collected", self._on_metrics)

    class Markup(tts.TTS.Markup):
        """The first plugin's: what the language model is taught to write."""

        def _provider_key(self) -> str:
            children = cast("GuardedTTS", cast("Any", self)._tts).guard.children
            return cast("str", cast("Any", children[0].plugin.markup)._provider_key())

    @property
    def guard(self) -> Guard[AnyTTS]:
        """The targets and what the link says about them."""
        return self._guard

    @property
    def model(self) -> str:
        """Of the plugin that speaks next."""
        return self._next().plugin.model

    @property
    def provider(self) -> str:
        """Of the plugin that speaks next."""
        return self._next().plugin.provider

    @property
    def metrics_metadata(self) -> Any:
        """Of the plugin that spoke last."""
        return self._spoke_last.plugin.metrics_metadata

    @property
    def voice_target(self) -> str | None:
        """The target whose voice the caller knows; None before anything was said."""
        return self._guard.voice

    def stream(
        self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> GuardedSynthesizeStream:
        return GuardedSynthesizeStream(self, conn_options)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> GuardedChunkedStream:
        return GuardedChunkedStream(self, text, conn_options)

    def prewarm(self) -> None:
        """Open the connections of the two best: the second is needed when nobody has time for a handshake."""
        for child in self._guard.route()[:2]:
            child.plugin.prewarm()

    def _set_expressive(self, enabled: bool) -> None:
        super()._set_expressive(enabled)
        for child in self._guard.children:
            cast("Any", child.plugin)._set_expressive(enabled)

    async def aclose(self) -> None:
        """Let go of plugins and link; segments still spoken are given up."""
        for stop in self._stops:
            stop()
        self._stops.clear()
        if self._listens:
            for child in self._guard.children:
                cast("Any", child.plugin).off("metrics_collected", self._on_metrics)
        self._listens = False
        for target, (own, taken) in self._own_voices.items():
            put_back(self._guard.child(target).plugin, taken, own)
        self._own_voices.clear()
        await self._guard.aclose()

    def prepare(self, child: TtsChild) -> None:
        """For `Speech`: the child is going to speak, instead of another one perhaps."""
        own = self._guard.children[0]
        if not self._match_voices or child is own or child is self._spoke_last:
            return  # the first one's voice was chosen for the call: no substitute's, which may have fitted badly
        like = own if is_known(own.plugin, self._voices) else self._spoke_last
        before = voice_id_of(child.plugin)
        taken = take_voice_of(child.plugin, like.plugin, self._voices)
        if taken is not None:
            first, _ = self._own_voices.get(child.target, (before, taken))
            self._own_voices[child.target] = (first, taken)

    def spoke(self, child: TtsChild) -> None:
        """For `Speech`: the caller hears this voice."""
        self._spoke_last = child
        if self._sticky:
            self._guard.voice = child.target

    def gives_times(self, child: TtsChild) -> bool:
        """For `Speech`: False when it was found to give no word times in its language: it speaks by sentences then."""
        return not self._untimed or (child.target, language_of(child.plugin)) not in self._untimed

    def gave_no_times(self, child: TtsChild) -> None:
        """For `Speech`: words were heard, and no time of any."""
        self._untimed.add((child.target, language_of(child.plugin)))

    def error_for(self, fault: Fault | None) -> Exception:
        """For `Speech`: what to raise when no voice is left."""
        return api_error(fault) if fault is not None else no_target(Role.TTS)

    def _next(self) -> TtsChild:
        route = self._guard.route()
        return route[0] if route else self._guard.children[0]

    def _on_metrics(self, *args: Any) -> None:
        if not probing.get():  # what a probe uses is none of the call's
            self.emit("metrics_collected", *args)


async def _say(speech: Speech, emitter: tts.AudioEmitter) -> None:
    """Run it. Only `APIError` gets out: the session takes anything else for a bug of its own."""
    try:
        await speech.run()
    except APIError:
        if speech.out_s:
            # After an error livekit drops what its emitter still holds: the end of the last word.
            emitter.end_input()
            await emitter.join()
        raise
    except Exception as error:  # noqa: BLE001 - as said above
        log.error("speaking broke", action="guard.tts.broke", error=type(error).__name__)
        raise APIConnectionError("the guarded stream broke", retryable=False) from None


class GuardedSynthesizeStream(tts.SynthesizeStream):
    """A segment spoken as its text comes."""

    _tts_request_span_name: ClassVar[str] = "tts_guard"
    _tts_attempt_span_name: ClassVar[str | None] = None  # every voice has a span of its own

    def __init__(self, guarded: GuardedTTS, conn_options: APIConnectOptions) -> None:
        # The session's retries must not wrap the whole routing.
        once = dataclasses.replace(conn_options, max_retry=0)
        super().__init__(tts=guarded, conn_options=once)  # pyright: ignore[reportUnknownMemberType] - livekit's TTS is generic without a default
        self._guarded = guarded

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._guarded.sample_rate,
            num_channels=self._guarded.num_channels,
            mime_type="audio/pcm",
            stream=True,
        )
        output_emitter.start_segment(segment_id=utils.shortuuid())
        speech = Speech(self._guarded, output_emitter, on_sent=self._mark_started)
        feeding = asyncio.create_task(self._feed(speech), name="guard.tts.feed")
        try:
            await _say(speech, output_emitter)
        finally:
            await utils.aio.cancel_and_wait(feeding)

    async def _feed(self, speech: Speech) -> None:
        async for item in self._input_ch:
            if isinstance(item, str):
                speech.script.push(item)
                speech.poke()
            elif speech.script.text:
                break  # a flush after text: livekit takes no more of it, and whoever flushes waits for the sound
        speech.script.ended = True
        speech.poke()

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[tts.SynthesizedAudio]) -> None:
        """The voices' own metrics are passed on; these would count everything twice."""
        async for _ in event_aiter:
            pass


class GuardedChunkedStream(tts.ChunkedStream):
    """A whole text spoken at once."""

    _tts_request_span_name: ClassVar[str] = "tts_guard"
    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, guarded: GuardedTTS, text: str, conn_options: APIConnectOptions) -> None:
        once = dataclasses.replace(conn_options, max_retry=0)
        super().__init__(tts=guarded, input_text=text, conn_options=once)  # pyright: ignore[reportUnknownMemberType] - as above
        self._guarded = guarded

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._guarded.sample_rate,
            num_channels=self._guarded.num_channels,
            mime_type="audio/pcm",
        )
        speech = Speech(self._guarded, output_emitter)
        speech.script.push(self.input_text)
        speech.script.ended = True
        await _say(speech, output_emitter)
        output_emitter.flush()

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[tts.SynthesizedAudio]) -> None:
        async for _ in event_aiter:
            pass
