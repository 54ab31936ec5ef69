"""`GuardedSTT`: one recogniser for the session, made of several speech-to-text plugins."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any, Final, cast
from weakref import WeakSet

import structlog
from livekit import rtc
from livekit.agents import APIConnectionError, APIConnectOptions, APIError, stt, utils, vad
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr

from supervisor.core.decide import GiveUp, Retry
from supervisor.wire.vocabulary import FaultKind, Phase, Role
from worker.guard.errors import api_error, no_target
from worker.guard.evidence import watch
from worker.guard.faults import Fault
from worker.guard.listeners import HarmlessListeners
from worker.guard.names import Child, children_of, unwrap
from worker.guard.plugin_face import PluginFace
from worker.guard.probe import offer_probes, probing
from worker.guard.routing import Guard, GuardOptions, Woke
from worker.guard.stt_due import Style
from worker.guard.stt_ear import AnySTT, recognize_once, style_of
from worker.guard.stt_listen import Listening
from worker.guard.stt_probe import probe_stt
from worker.guard.stt_route import EarGuard
from worker.guard.stt_state import SttChild
from worker.link.api import Link, Use

log = structlog.stdlib.get_logger("worker.guard")

_TOO_LATE: Final = Fault(
    FaultKind.FIRST_OUTPUT_TIMEOUT, message="no transcript came in time", phase=Phase.FIRST_OUTPUT
)


class GuardedSTT(PluginFace, HarmlessListeners, stt.STT[Any]):
    """Several recognisers behind one face.

    plugins: livekit STT plugins in the order wanted, streaming or not, or `Child`s; they stay their owner's.
    detector: livekit's VAD; needed for bare plugins that do not stream, and it tells noise from speech that a
    recogniser failed to notice (default: the one of a `stt.StreamAdapter` among the plugins).
    Raises ValueError without plugins, or when one needs a VAD and there is none.
    """

    owns_plugins = False

    def __init__(
        self,
        plugins: Sequence[AnySTT | Child[AnySTT]],
        link: Link,
        *,
        detector: vad.VAD | None = None,
        session: str = "",
        session_started_at_ms: int = 0,
        options: GuardOptions | None = None,
        names: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        children = children_of(Role.STT, plugins, names=names)
        if not children:
            raise ValueError("at least one stt plugin is needed")
        for child in children:
            if style_of(child.plugin) is Style.REQUEST and detector is None and _own_vad(child) is None:
                raise ValueError(
                    f"{child.target} does not stream; give GuardedSTT a detector (livekit's VAD)"
                )
        said = [child.plugin.capabilities for child in children]
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=any(c.interim_results for c in said),
                diarization=all(c.diarization for c in said),
                offline_recognize=True,
                keyterms=any(c.keyterms for c in said),
                chat_context=any(c.chat_context for c in said),
                manual_flush=said[0].manual_flush,
            )
        )
        # `recognize()` of the plugins emits their own.
        self._recognize_metrics_needed = False
        self._guard = EarGuard(
            Role.STT,
            children,
            link,
            session=session,
            session_started_at_ms=session_started_at_ms,
            options=options,
        )
        # Energy alone takes every noise for speech that a recogniser should have answered to.
        self._detector = detector or next(filter(None, map(_own_vad, children)), None)
        self._understood_last = children[0]
        self._listens = True
        self._streams: WeakSet[GuardedRecognizeStream] = WeakSet()
        self._stops: list[Callable[[], None]] = [offer_probes(self._guard, probe_stt)]
        for child in children:
            inner = unwrap(child.plugin)
            self._stops.append(watch(inner))
            inner.on("metrics_collected", self._on_metrics)

    @property
    def guard(self) -> Guard[AnySTT]:
        """The targets and what the link says about them."""
        return self._guard

    @property
    def detector(self) -> vad.VAD | None:
        """The VAD given."""
        return self._detector

    @property
    def model(self) -> str:
        """Of the plugin that listens next."""
        return self._next().plugin.model

    @property
    def provider(self) -> str:
        """Of the plugin that listens next."""
        return self._next().plugin.provider

    @property
    def metrics_metadata(self) -> Any:
        """Of the plugin that was understood last."""
        return self._understood_last.plugin.metrics_metadata

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> GuardedRecognizeStream:
        stream = GuardedRecognizeStream(self, language, conn_options)
        self._streams.add(stream)
        return stream

    def overdue(self) -> bool:
        """Words are waited for in vain: go on with the next recogniser now. Nothing that was said is lost.

        False when that cannot help: nobody else is left, or nothing is under way.
        """
        told = [stream.overdue() for stream in self._streams]
        return any(told)

    async def recognize(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.SpeechEvent:
        """One recording. Raises livekit's `APIError` when nobody can."""
        once = dataclasses.replace(conn_options, max_retry=0)
        return await super().recognize(buffer, language=language, conn_options=once)

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        turn = self._guard.turn()
        decision = turn.next()
        last: Fault | None = None
        while not isinstance(decision, GiveUp):
            if isinstance(decision, Retry) and decision.sleep_ms:
                await asyncio.sleep(decision.sleep_ms / 1000)
            attempt = turn.begin(turn.child(decision))
            attempt.connected()
            asking: asyncio.Task[stt.SpeechEvent | Fault] = self._guard.keep(
                recognize_once(attempt.child.plugin, buffer, language=language)
            )
            try:
                woke = await attempt.wait(asking)
                if woke is Woke.VERDICT:
                    decision = turn.next()
                    continue
                heard = asking.result() if asking.done() else _TOO_LATE
                if isinstance(heard, stt.SpeechEvent):
                    attempt.first_output()
                    attempt.succeeded(Use(audio_ms=int(utils.audio.calculate_audio_duration(buffer) * 1000)))
                    return heard
                last = heard
                decision = turn.fail(attempt, last)
            finally:
                asking.cancel()
                attempt.abandoned()
        raise api_error(last) if last is not None else no_target(Role.STT)

    def prewarm(self) -> None:
        self._next().plugin.prewarm()

    def understood(self, child: SttChild) -> None:
        """A transcript came."""
        self._understood_last = child
        self._guard.understood(child.target)

    def failed(self, child: SttChild) -> None:
        """It failed in this call."""
        self._guard.failed(child.target)

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        for child in self._guard.children:
            if child.plugin.capabilities.keyterms:
                cast("Any", child.plugin)._update_session_keyterms(keyterms)

    def _push_conversation_item(self, ev: Any) -> None:
        for child in self._guard.children:
            if child.plugin.capabilities.chat_context:
                cast("Any", child.plugin)._push_conversation_item(ev)

    async def aclose(self) -> None:
        """Let go of plugins and link; streams still running are given up."""
        for stop in self._stops:
            stop()
        self._stops.clear()
        for child in self._guard.children:
            if self._listens:
                unwrap(child.plugin).off("metrics_collected", self._on_metrics)
        self._listens = False
        await self._guard.aclose()

    def _next(self) -> SttChild:
        route = self._guard.route()
        return route[0] if route else self._guard.children[0]

    def _on_metrics(self, *args: Any) -> None:
        if not probing.get():  # what a probe uses is none of the call's
            self.emit("metrics_collected", *args)


def _own_vad(child: SttChild) -> vad.VAD | None:
    """The VAD of a plugin wrapped in `stt.StreamAdapter`."""
    return cast("vad.VAD | None", getattr(child.plugin, "_vad", None))


class GuardedRecognizeStream(stt.RecognizeStream):
    """Listens until it is closed or its input ends."""

    def __init__(
        self, guarded: GuardedSTT, language: NotGivenOr[str], conn_options: APIConnectOptions
    ) -> None:
        once = dataclasses.replace(conn_options, max_retry=0)
        super().__init__(stt=guarded, conn_options=once)  # pyright: ignore[reportUnknownMemberType] - livekit's STT is generic without a default
        self._guarded = guarded
        self._language = language
        self._listening: Listening | None = None

    @property
    def guard(self) -> Guard[AnySTT]:
        """For `Listening`, as all below."""
        return self._guarded.guard

    @property
    def detector(self) -> vad.VAD | None:
        return self._guarded.detector

    @property
    def language(self) -> NotGivenOr[str]:
        return self._language

    def emit_event(self, event: stt.SpeechEvent, context: Any) -> None:
        if context is not None:
            self.context = context
        if not self._event_ch.closed:
            self._event_ch.send_nowait(event)

    def complain(self, fault: Fault | None, *, recoverable: bool) -> None:
        # An event, not an exception: raising would end the stream, and with it what the caller said.
        self._emit_error(self.error_for(fault), recoverable=recoverable)

    def error_for(self, fault: Fault | None) -> Exception:
        return api_error(fault) if fault is not None else no_target(Role.STT)

    def understood(self, child: SttChild) -> None:
        self._guarded.understood(child)

    def failed(self, child: SttChild) -> None:
        self._guarded.failed(child)

    def overdue(self) -> bool:
        """See `GuardedSTT.overdue`."""
        return self._listening is not None and self._listening.overdue()

    async def _run(self) -> None:
        listening = self._listening = Listening(self)
        feeding = asyncio.create_task(self._feed(listening), name="guard.stt.feed")
        try:
            await listening.run()
        except APIError:
            raise
        except Exception as error:  # noqa: BLE001 - livekit reopens the stream after an APIError; after anything else it is deaf for good
            log.error("listening broke", action="guard.stt.broke", error=type(error).__name__)
            raise APIConnectionError("the guarded stream broke", retryable=False) from None
        finally:
            self._listening = None
            await utils.aio.cancel_and_wait(feeding)

    async def _feed(self, listening: Listening) -> None:
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                listening.hear(item)
            elif not self._input_ch.closed:
                listening.flush()
        listening.end()

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[stt.SpeechEvent]) -> None:
        """The recognisers' own metrics are passed on; these would count everything twice."""
        async for _ in event_aiter:
            pass
