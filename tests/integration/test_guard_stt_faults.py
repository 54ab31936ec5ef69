"""GuardedSTT with the real plugins against the stand-ins: every fault, transcripts compared word by word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import numpy as np
import pytest
from livekit.agents import APIError, stt
from livekit.plugins import cartesia, groq

from tests.support.noted_link import NotedLink
from tests.support.speaking import RATE, SPEECH, Caller, Kind, detector, frame_of, spoken
from tests.support.waiting import wait_until
from worker.guard.stt import GuardedSTT
from worker.simulator.server import SimulatorServer
from worker.simulator.speech import sentences
from worker.simulator.stand import Options

CARTESIA = "stt:cartesia:ink-2"
GROQ = "stt:groq:whisper-large-v3-turbo"
FIRST, SECOND = sentences()[1].text, sentences()[8].text
LAST_WORD = FIRST.split()[-1]


class Rig:
    """A guard over both plugins and its link."""

    def __init__(self, sim: SimulatorServer, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.link = NotedLink()
        # So long that no busy machine makes a fault of a healthy one; `impatient` is for the ones that are broken.
        self.link.deadlines(CARTESIA, GROQ, first_output_ms=10_000, stall_ms=5_000)
        self.cartesia = cartesia.STT(api_key="key", base_url=sim.base_url("cartesia"), http_session=session)
        self.groq = groq.STT(api_key="key", base_url=sim.base_url("groq"))
        self.stt = GuardedSTT([self.cartesia, self.groq], self.link, detector=detector())
        self.errors: list[Any] = []
        cast("Any", self.stt).on("error", self.errors.append)

    def impatient(self) -> None:
        """From now on the first recogniser is waited for as long as a test may take."""
        self.link.deadlines(CARTESIA, first_output_ms=1500, stall_ms=700)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with SimulatorServer(options=Options(stt_final_s=0.05)) as sim, aiohttp.ClientSession() as session:
        made = Rig(sim, session)
        try:
            yield made
        finally:
            await made.stt.aclose()
            await made.cartesia.aclose()
            await made.groq.aclose()
            assert made.link.double_ends == 0
            assert all(attempt.end for attempt in made.link.attempts), "an attempt was never ended"


@pytest.fixture
async def caller(rig: Rig) -> AsyncIterator[Caller]:
    async with rig.stt.stream() as stream:
        made = Caller(stream)
        try:
            yield made
        finally:
            await made.aclose()


async def test_first_recogniser_listens(rig: Rig, caller: Caller) -> None:
    caller.say(FIRST)
    await caller.understood(FIRST)
    await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 1, "the end of speech")
    caller.say(SECOND)
    await caller.understood(f"{FIRST} {SECOND}")
    await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 2, "the second end of speech")
    assert caller.count(Kind.START_OF_SPEECH) == 2
    assert rig.link.ends() == [(CARTESIA, "ok")] * 2
    assert rig.errors == []


@pytest.mark.parametrize(
    ("fault", "fields", "kind"),
    [
        ("hang", {}, "first_output_timeout"),
        ("refuse", {}, "connect"),
        ("status", {"status": 503}, "overloaded"),
        ("status", {"status": 401}, "authentication"),
        ("silent", {}, "first_output_timeout"),
        ("slow", {"delay_s": 20}, "silent"),
    ],
)
async def test_dead_from_the_beginning(rig: Rig, fault: str, fields: dict[str, Any], kind: str) -> None:
    if fault in ("hang", "silent", "slow"):
        rig.impatient()
    rig.sim.set_fault("stt", "cartesia", fault, **fields)
    async with rig.stt.stream() as stream:
        caller = Caller(stream)
        caller.say(FIRST)
        await caller.understood(FIRST)
        await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 1, "the end of speech")
        assert caller.count(Kind.START_OF_SPEECH) == 1
        await caller.aclose()
    assert rig.link.ends()[-1] == (GROQ, "ok")
    assert (CARTESIA, kind) in rig.link.ends()
    assert rig.errors == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("cut", "cut"), ("hang", "stalled"), ("silent", "stalled"), ("status", "overloaded"), ("refuse", "cut")],
)
async def test_dying_after_some_words_loses_none(rig: Rig, caller: Caller, fault: str, kind: str) -> None:
    if kind == "stalled":
        rig.impatient()
    caller.say(FIRST)
    await wait_until(lambda: caller.count(Kind.INTERIM_TRANSCRIPT) >= 3, "some words were understood")
    rig.sim.set_fault("stt", "cartesia", fault)
    await caller.understood(FIRST)
    assert caller.count(Kind.START_OF_SPEECH) == 1
    assert rig.link.ends() == [(CARTESIA, kind), (GROQ, "ok")]
    assert rig.errors == []
    if fault == "cut":
        caller.say(SECOND)
        await caller.understood(f"{FIRST} {SECOND}")


async def test_a_long_story_without_a_pause_loses_no_word(rig: Rig) -> None:
    story = [sentence.text for sentence in sentences()] * 2
    async with rig.stt.stream() as stream:
        stream.push_frame(frame_of(SPEECH[story[0]]))
        async for event in stream:
            if event.type is Kind.INTERIM_TRANSCRIPT:
                break
        for line in story[1:]:  # quicker than anybody speaks: what matters is how much it is
            stream.push_frame(frame_of(SPEECH[line]))
        async for event in stream:
            if len(text(event).split()) >= len(" ".join(story).split()) - 1:
                break
        rig.sim.set_fault("stt", "cartesia", "cut")
        caller = Caller(stream)
        await caller.understood(" ".join(story))
        await caller.aclose()
    assert rig.link.ends() == [(CARTESIA, "cut"), (GROQ, "ok")]


async def test_a_recogniser_that_used_to_answer_soon_is_not_waited_for_long(rig: Rig, caller: Caller) -> None:
    caller.say(FIRST)
    await caller.understood(FIRST)
    await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 1, "the end of speech")
    rig.link.deadlines(CARTESIA, first_output_ms=60_000, stall_ms=60_000)
    rig.sim.set_fault("stt", "cartesia", "hang")
    caller.say(SECOND)
    await caller.understood(f"{FIRST} {SECOND}")
    # Nobody is blamed yet, but what was given up while late is evidence of a hang.
    assert rig.link.ends() == [(CARTESIA, "ok"), (CARTESIA, "abandoned"), (GROQ, "ok")]


async def test_told_that_it_is_overdue_the_next_one_gets_every_word(rig: Rig, caller: Caller) -> None:
    rig.link.deadlines(CARTESIA, GROQ, first_output_ms=60_000, stall_ms=60_000)
    rig.sim.set_fault("stt", "cartesia", "hang")
    assert not rig.stt.overdue(), "nobody has spoken"
    caller.say(FIRST)
    await wait_until(lambda: caller.said_all, "the sentence is over")
    assert rig.stt.overdue()
    assert rig.stt.overdue(), "the next one is at work: no stream is to be thrown away"
    await caller.understood(FIRST)
    assert rig.link.ends() == [(CARTESIA, "first_output_timeout"), (GROQ, "ok")]


async def test_a_hanging_request_is_left_when_somebody_else_can_be_asked(rig: Rig) -> None:
    rig.link.deadlines(CARTESIA, GROQ, first_output_ms=60_000, stall_ms=60_000)
    rig.sim.set_fault("stt", "groq", "hang")
    guarded = GuardedSTT([rig.groq, rig.cartesia], rig.link, detector=detector())
    async with guarded.stream() as stream:
        caller = Caller(stream)
        caller.say(FIRST)
        await caller.understood(FIRST)
        await caller.aclose()
    await guarded.aclose()
    assert rig.link.ends() == [(GROQ, "abandoned"), (CARTESIA, "ok")]


async def test_cut_between_utterances(rig: Rig, caller: Caller) -> None:
    caller.say(FIRST)
    await caller.understood(FIRST)
    rig.sim.set_fault("stt", "cartesia", "cut")
    rig.sim.clear_faults()
    caller.say(SECOND)
    await caller.understood(f"{FIRST} {SECOND}")
    assert caller.finals() == f"{FIRST} {SECOND}"


async def test_hang_right_after_the_last_word(rig: Rig, caller: Caller) -> None:
    caller.say(FIRST)
    await wait_until(
        lambda: caller.events and any(LAST_WORD in text(event) for event in caller.events), "the last word"
    )
    rig.sim.set_fault("stt", "cartesia", "hang")
    await caller.understood(FIRST)
    # The service may have been right to wait for more: nobody is blamed.
    assert rig.link.ends() == [(CARTESIA, "abandoned"), (GROQ, "ok")]


def text(event: stt.SpeechEvent) -> str:
    return event.alternatives[0].text if event.alternatives else ""


async def test_verdict_while_waiting_and_while_idle(rig: Rig, caller: Caller) -> None:
    await wait_until(lambda: rig.sim.requests(provider="cartesia", role="stt"), "the first one listens")
    rig.link.rule(CARTESIA, admit=0.0)
    caller.say(FIRST)
    await caller.understood(FIRST)
    assert rig.link.ends() == [(GROQ, "ok")]
    rig.link.rule(CARTESIA, admit=1.0)
    await wait_until(lambda: len(rig.sim.requests(provider="cartesia", role="stt")) >= 2, "it is used again")
    caller.say(SECOND)
    await caller.understood(f"{FIRST} {SECOND}")
    assert rig.link.ends()[-1] == (CARTESIA, "ok")


async def test_everybody_dead_says_so_once_and_recovers_with_every_word(rig: Rig) -> None:
    rig.sim.set_fault("stt", "cartesia", "status", status=503)
    rig.sim.set_fault("stt", "groq", "status", status=503)
    async with rig.stt.stream() as stream:
        caller = Caller(stream)
        caller.say(FIRST)
        await wait_until(lambda: rig.errors, "the session is told", 10)
        assert isinstance(rig.errors[0].error, APIError)
        assert rig.errors[0].recoverable is False
        rig.sim.clear_faults()
        await caller.understood(FIRST)
        assert [error.recoverable for error in rig.errors] == [False]
        await caller.aclose()


async def test_a_listener_with_a_type_error_does_not_end_the_listening(rig: Rig) -> None:
    def wrong(_: object) -> None:
        raise TypeError("mine")

    cast("Any", rig.stt).on("error", wrong)
    rig.sim.set_fault("stt", "cartesia", "status", status=503)
    rig.sim.set_fault("stt", "groq", "status", status=503)
    async with rig.stt.stream() as stream:
        caller = Caller(stream)
        caller.say(FIRST)
        await wait_until(lambda: rig.errors, "the session is told", 10)
        rig.sim.clear_faults()
        await caller.understood(FIRST)
        await caller.aclose()


async def test_nobody_is_blamed_for_silence_and_coughs(rig: Rig, caller: Caller) -> None:
    noise = np.random.default_rng(1).normal(0, 3000, int(RATE * 0.15)).astype(np.int16)
    caller.stream.push_frame(frame_of(noise))
    await wait_until(lambda: rig.sim.requests(provider="cartesia", role="stt"), "it listens")
    caller.say(SECOND)
    await caller.understood(SECOND)
    assert "fault" not in {attempt.end for attempt in rig.link.attempts}


async def test_a_noise_taken_for_speech_by_one_that_then_dies_ends_for_the_session(
    rig: Rig, caller: Caller
) -> None:
    """Else a session that trusts the recogniser holds its caller for speaking until the next words."""
    caller.make(np.random.default_rng(1).normal(0, 3000, int(RATE * 0.4)).astype(np.int16))
    await wait_until(lambda: caller.count(Kind.START_OF_SPEECH) == 1, "the noise is taken for speech")
    rig.sim.set_fault("stt", "cartesia", "cut")
    await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 1, "the end of it")
    caller.say(FIRST)
    await caller.understood(FIRST)
    await wait_until(lambda: caller.count(Kind.END_OF_SPEECH) == 2, "the end of the words")
    assert caller.count(Kind.START_OF_SPEECH) == 2


async def test_input_that_ends_is_answered_to_its_end(rig: Rig) -> None:
    async with rig.stt.stream() as stream:
        stream.push_frame(spoken(FIRST))
        stream.end_input()
        events = [event async for event in stream]
    assert " ".join(text(e) for e in events if e.type is Kind.FINAL_TRANSCRIPT) == FIRST


@pytest.mark.parametrize("fault", ["cut", "hang"])
async def test_input_that_ends_on_the_last_word_is_answered_by_one_that_does_not_stream(
    rig: Rig, fault: str
) -> None:
    rig.impatient()
    async with rig.stt.stream() as stream:
        rig.sim.set_fault("stt", "cartesia", fault)
        stream.push_frame(frame_of(SPEECH[FIRST]))
        stream.end_input()
        events = [event async for event in stream]
    assert " ".join(text(e) for e in events if e.type is Kind.FINAL_TRANSCRIPT) == FIRST
    assert rig.link.ends()[-1] == (GROQ, "ok")


async def test_input_that_ends_in_silence_ends_the_stream_whoever_hangs(rig: Rig) -> None:
    rig.sim.set_fault("stt", "cartesia", "hang")
    async with rig.stt.stream() as stream:
        stream.push_frame(frame_of(np.zeros(RATE, np.int16)))
        stream.end_input()
        async with asyncio.timeout(30):
            events = [event async for event in stream]
    assert [e for e in events if text(e)] == []
    assert {attempt.end for attempt in rig.link.attempts} <= {"ok", "abandoned"}


async def test_input_that_ends_with_everybody_dead_raises(rig: Rig) -> None:
    rig.sim.set_fault("stt", "cartesia", "status", status=503)
    rig.sim.set_fault("stt", "groq", "status", status=503)
    async with rig.stt.stream() as stream:
        stream.push_frame(spoken(FIRST))
        stream.end_input()
        with pytest.raises(APIError):
            assert [event async for event in stream] == []


async def test_a_plugin_that_cannot_open_a_stream_is_the_next_ones_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("no stream")

    monkeypatch.setattr(rig.cartesia, "stream", broken)
    async with rig.stt.stream() as stream:
        caller = Caller(stream)
        try:
            caller.say(FIRST)
            await caller.understood(FIRST)
        finally:
            await caller.aclose()
    assert rig.link.ends()[0] == (CARTESIA, "unknown")
    assert rig.link.ends()[-1] == (GROQ, "ok")


async def test_a_refused_key_counts_before_anybody_has_spoken(rig: Rig) -> None:
    """The recogniser is connected when the call begins, often before there is any sound."""
    rig.sim.set_fault("stt", "cartesia", "status", status=401)
    async with rig.stt.stream():
        await wait_until(lambda: rig.link.attempts and rig.link.attempts[0].end, "the connection was refused")
    assert rig.link.ends()[0] == (CARTESIA, "authentication")


async def test_recognize_goes_to_the_next(rig: Rig) -> None:
    event = await rig.stt.recognize(spoken(FIRST))
    assert text(event) == FIRST
    rig.sim.set_fault("stt", "cartesia", "status", status=503)
    event = await rig.stt.recognize(spoken(FIRST))
    assert text(event) == FIRST
    assert rig.link.ends() == [(CARTESIA, "ok"), (CARTESIA, "overloaded"), (GROQ, "ok")]
