"""Whether loud sound is speech, with a VAD that gives up."""

from __future__ import annotations

from livekit import rtc

from tests.support.speaking import RATE, detector
from worker.guard.stt_speech_check import SpeechCheck


async def test_a_vad_that_has_ended_makes_nobody_deaf() -> None:
    vad = detector()
    stream = vad.stream()
    await stream.aclose()
    vad.stream = lambda: stream  # the one whose task has ended
    check = SpeechCheck(vad)
    frame = rtc.AudioFrame(bytes(640), RATE, 1, 320)
    check.push(frame, 0.02, loud=True)
    check.push(frame, 0.02, loud=True)
    assert check.heard_since(1.0), "everything loud counts, as without a VAD"
    await check.aclose()
