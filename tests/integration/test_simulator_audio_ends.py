"""A caller's microphone and loudspeaker, in real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest
from livekit import rtc
from livekit.agents.voice.io import PlaybackFinishedEvent

from tests.support.waiting import wait_until
from worker.simulator.callers import Ears, ListeningOutput, ScriptedCallerInput
from worker.simulator.wordcode import decode, speak

WORDS = ["Amber", "bridge", "copper", "dolphin", "ember."]
PLAYED_S = 20.0


class Listener:
    def __init__(self) -> None:
        self.ears = Ears()
        self.output = ListeningOutput(self.ears)
        self.finished: list[PlaybackFinishedEvent] = []
        self.started = 0
        events = cast("Any", self.output)
        events.on("playback_finished", self.finished.append)
        events.on("playback_started", self._count)

    def _count(self, _: object) -> None:
        self.started += 1

    async def push(self, words: list[str], rate: int = 24_000) -> None:
        pcm, _ = speak(words, rate)
        for start in range(0, len(pcm), rate // 10):
            piece = pcm[start : start + rate // 10]
            await self.output.capture_frame(rtc.AudioFrame(piece.tobytes(), rate, 1, len(piece)))

    def heard(self) -> list[str]:
        return [word.word for word in self.ears.words]


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    yield listener
    await listener.output.aclose()


async def test_speech_is_heard_in_its_own_time(listener: Listener) -> None:
    began_mono = time.monotonic()
    await listener.push(WORDS)
    listener.output.flush()
    finished = await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)
    assert time.monotonic() - began_mono >= 1.3
    assert (finished.interrupted, finished.playback_position) == (False, pytest.approx(1.3, abs=0.01))
    await wait_until(lambda: listener.heard() == WORDS, "every word is heard")
    ends = [word.end_mono - began_mono for word in listener.ears.words]
    assert all(end >= 0.26 * (number + 1) - 0.02 for number, end in enumerate(ends))
    (sound,) = listener.ears.sounds
    assert sound.end_mono - sound.start_mono == pytest.approx(1.3, abs=0.1)
    assert listener.started == 1
    assert not listener.output.pending


async def test_an_interruption_ends_the_speech_at_once(listener: Listener) -> None:
    await listener.push(WORDS * 8)
    await wait_until(lambda: len(listener.heard()) >= 2, "two words are heard")
    listener.output.flush()
    listener.output.clear_buffer()
    finished = await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)
    assert finished.interrupted
    assert 0.5 <= finished.playback_position < 8 * 1.3
    assert listener.heard() == (WORDS * 8)[: len(listener.heard())]
    await listener.push(["Again."])
    listener.output.flush()
    assert not (await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)).interrupted
    await wait_until(lambda: listener.heard()[-1] == "Again.", "the next speech is heard")
    assert (len(listener.finished), listener.started) == (2, 2)


async def test_what_comes_after_an_interruption_is_dropped_until_the_flush(listener: Listener) -> None:
    await listener.push(["Amber"] * 40)
    await wait_until(lambda: listener.started == 1, "it plays")
    listener.output.clear_buffer()
    await listener.push(["bridge"])
    listener.output.flush()
    assert (await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)).interrupted
    assert "bridge" not in listener.heard()


async def test_a_pause_holds_the_speech(listener: Listener) -> None:
    listener.output.pause()
    await listener.push(["Amber"])
    listener.output.flush()
    await listener.push(["bridge."])
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(listener.output.wait_for_playout()), 0.4)
    assert listener.heard() == []
    listener.output.resume()
    listener.output.flush()
    await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)
    await wait_until(lambda: listener.heard() == ["Amber", "bridge."], "both are heard")


async def test_flushing_nothing_is_nothing(listener: Listener) -> None:
    listener.output.flush()
    listener.output.clear_buffer()
    assert listener.finished == []
    assert not listener.output.pending


async def test_a_voice_may_change_its_rate(listener: Listener) -> None:
    for rate in (24_000, 48_000, 16_000):
        await listener.push(["Amber", "bridge."], rate)
        listener.output.flush()
        await asyncio.wait_for(listener.output.wait_for_playout(), PLAYED_S)
        # The last word of a rate is taken in when the loudspeaker rests.
        await wait_until(lambda: listener.heard()[-1:] == ["bridge."], "it is heard")
        listener.ears.words.clear()


async def test_the_microphone_speaks_in_real_time() -> None:
    microphone = ScriptedCallerInput()
    pcm, _ = speak(WORDS, 16_000)
    began_mono = time.monotonic()
    said = microphone.speak(pcm)
    frames: list[rtc.AudioFrame] = []
    while not said.done() or len(frames) % 10:
        frames.append(await anext(microphone))
    assert {(frame.sample_rate, frame.samples_per_channel) for frame in frames} == {(16_000, 800)}
    heard = np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames])
    assert decode(heard, 16_000) == WORDS
    assert said.result() - began_mono >= 1.3 - 0.001
    assert time.monotonic() >= said.result()
    assert time.monotonic() - began_mono >= 0.05 * len(frames) - 0.001


async def test_hanging_up_ends_the_microphone() -> None:
    microphone = ScriptedCallerInput()
    said = microphone.speak(speak(WORDS, 16_000)[0])
    await anext(microphone)
    microphone.close()
    assert said.cancelled()
    assert [frame async for frame in microphone] == []
