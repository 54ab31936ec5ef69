"""Whether loud sound is speech, with a VAD that gives up, and with a patient one."""

from __future__ import annotations

import time

from livekit import rtc
from livekit.agents import inference

from tests.support.speaking import RATE, SPEECH, detector
from tests.support.waiting import wait_until
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


async def test_a_patient_vad_sees_the_speech_end() -> None:
    """Else every noise after it would be speech that the recogniser owes an answer to."""
    check = SpeechCheck(inference.VAD(min_silence_duration=1.2))
    speech = next(iter(SPEECH.values())).tobytes()
    for start in range(0, len(speech) - 639, 640):
        check.push(rtc.AudioFrame(speech[start : start + 640], RATE, 1, 320), 0.02, loud=True)
    await wait_until(lambda: check.heard_since(time.monotonic()), "speech is heard")
    for _ in range(150):
        check.push(rtc.AudioFrame(bytes(640), RATE, 1, 320), 0.02, loud=False)
    await wait_until(lambda: not check.heard_since(time.monotonic()), "the end of it is heard")
    await check.aclose()
