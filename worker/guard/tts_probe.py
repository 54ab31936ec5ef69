"""A probe of a voice: one word spoken, heard to its end."""

from __future__ import annotations

import asyncio
import time

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.faults import Fault
from worker.guard.names import provider_of
from worker.guard.probe import Probed
from worker.guard.tts_text import Script
from worker.guard.tts_track import Track
from worker.guard.tts_voice import AnyTTS, VoiceStream

TEXT = "Hello."


async def probe_tts(plugin: AnyTTS, budget_ms: int) -> Probed:
    """Speak one word. Budget: milliseconds for all of it. A good probe was audible."""
    began = time.monotonic()
    news = asyncio.Event()
    stream = VoiceStream(plugin, provider_of(plugin), news.set)
    script = Script()
    script.push(TEXT)
    track = Track(script, 0, plugin.sample_rate, channels=plugin.num_channels)
    first_ms = 0
    try:
        stream.push(TEXT)
        stream.end()
        while not stream.done or stream.heard:
            while stream.heard:
                heard = stream.heard.popleft()
                track.hear(heard.pcm, heard.pieces, time.monotonic())
            if track.audible and not first_ms:
                first_ms = _since_ms(began)
            left_s = began + budget_ms / 1000 - time.monotonic()
            if left_s <= 0:
                kind = FaultKind.STALLED if first_ms else FaultKind.FIRST_OUTPUT_TIMEOUT
                phase = Phase.MID_STREAM if first_ms else Phase.FIRST_OUTPUT
                return Probed(Fault(kind, phase=phase), first_ms, _since_ms(began))
            if not stream.done:
                await asyncio.wait({waiting := asyncio.ensure_future(news.wait())}, timeout=left_s)
                waiting.cancel()
                news.clear()
        fault = stream.fault
        if fault is None and not first_ms:
            kind = FaultKind.SILENT if track.received_s > 0 else FaultKind.EMPTY
            fault = Fault(kind, phase=Phase.FIRST_OUTPUT)
        return Probed(fault, first_ms, _since_ms(began))
    finally:
        await stream.aclose()


def _since_ms(began_mono: float) -> int:
    return max(1, int((time.monotonic() - began_mono) * 1000))
