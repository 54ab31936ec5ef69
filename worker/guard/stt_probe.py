"""A probe of a recogniser: a second of recorded speech, understood to its end."""

from __future__ import annotations

import asyncio
import io
import time
import wave
from functools import lru_cache
from importlib import resources

from livekit import rtc

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.faults import Fault
from worker.guard.probe import Probed
from worker.guard.stt_ear import AnySTT, recognize_once, text_of

RECORDING = "stt_probe.wav"


@lru_cache(maxsize=1)
def recording() -> rtc.AudioFrame:
    """The recorded speech: mono, 16 kHz, 16 bits, with half a second of silence after it."""
    data = (resources.files("worker.guard") / RECORDING).read_bytes()
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
        pcm = file.readframes(file.getnframes()) + bytes(rate)
    return rtc.AudioFrame(pcm, rate, 1, len(pcm) // 2)


async def probe_stt(plugin: AnySTT, budget_ms: int) -> Probed:
    """Have the recording recognised. Budget: milliseconds for all of it. A good probe has words."""
    began = time.monotonic()
    asking = asyncio.ensure_future(recognize_once(plugin, recording()))
    try:
        await asyncio.wait({asking}, timeout=budget_ms / 1000)
        took_ms = max(1, int((time.monotonic() - began) * 1000))
        if not asking.done():
            return Probed(Fault(FaultKind.FIRST_OUTPUT_TIMEOUT, phase=Phase.FIRST_OUTPUT), 0, took_ms)
        heard = asking.result()
        if isinstance(heard, Fault):
            return Probed(heard, 0, took_ms)
        if not text_of(heard):
            return Probed(Fault(FaultKind.EMPTY, phase=Phase.FIRST_OUTPUT), 0, took_ms)
        return Probed(None, took_ms, took_ms)
    finally:
        asking.cancel()
        await asyncio.wait({asking})
