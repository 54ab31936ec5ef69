"""GuardedTTS with the real plugins against the stand-ins: every fault, words counted from the sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import APIError, tts

from tests.support.guarded_tts import CARTESIA, GROQ, TEXT, WORDS, Rig, rigged, told
from tests.support.simulated import words_in
from tests.support.waiting import wait_until
from worker.guard.tts import GuardedTTS


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as made:
        yield made


async def test_first_voice_speaks(rig: Rig) -> None:
    frames = await rig.say()
    assert words_in(frames) == WORDS
    assert {frame.sample_rate for frame in frames} == {48_000}
    assert rig.link.ends() == [(CARTESIA, "ok")]
    assert rig.link.attempts[0].use.characters >= len(TEXT)
    assert "".join(told(frames)).split() == WORDS
    assert rig.errors == []


@pytest.mark.parametrize(
    ("fault", "fields", "kind"),
    [
        ("hang", {}, "first_output_timeout"),
        ("slow", {"delay_s": 20}, "first_output_timeout"),
        ("refuse", {}, "connect"),
        ("status", {"status": 503}, "overloaded"),
        ("status", {"status": 401}, "authentication"),
        ("empty", {}, "empty"),
        ("silent", {}, "silent"),
    ],
)
async def test_next_voice_says_everything_before_any_sound(
    rig: Rig, fault: str, fields: dict[str, Any], kind: str
) -> None:
    if kind == "first_output_timeout":
        rig.impatient()
    rig.sim.set_fault("tts", "cartesia", fault, **fields)
    frames = await rig.say()
    assert words_in(frames) == WORDS
    assert rig.link.ends()[-1] == (GROQ, "ok")
    assert (CARTESIA, kind) in rig.link.ends()
    assert rig.errors == []


async def test_a_plugin_that_cannot_open_a_stream_is_the_next_ones_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("no stream")

    monkeypatch.setattr(rig.cartesia, "stream", broken)
    assert words_in(await rig.say()) == WORDS
    assert rig.link.ends() == [(CARTESIA, "unknown"), (GROQ, "ok")]
    assert rig.errors == []


async def test_error_inside_an_open_socket(rig: Rig) -> None:
    await rig.say("A first sentence here.")
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    assert words_in(await rig.say()) == WORDS
    # The bare plugin swallows it (the shipped HTTP session does not): what is left is a stream without audio.
    assert rig.link.ends() == [(CARTESIA, "ok"), (CARTESIA, "empty"), (GROQ, "ok")]


async def test_a_voice_is_kept_until_the_call_ends(rig: Rig) -> None:
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    await rig.say()
    rig.sim.clear_faults()
    rig.sim.clear_requests()
    frames = await rig.say("Another short sentence.")
    assert words_in(frames) == ["Another", "short", "sentence."]
    assert rig.tts.voice_target == GROQ
    assert rig.sim.requests(provider="cartesia") == []


async def test_a_late_voice_has_an_understudy(rig: Rig) -> None:
    rig.link.rule(CARTESIA, hedge_ms=80, first_output_ms=60_000)
    rig.sim.set_fault("tts", "cartesia", "hang")
    assert words_in(await asyncio.wait_for(rig.say(), 30)) == WORDS
    assert rig.link.ends() == [(CARTESIA, "abandoned"), (GROQ, "ok")]
    assert rig.tts.voice_target == GROQ


async def test_the_first_voice_to_sound_is_the_only_one_heard(rig: Rig) -> None:
    rig.link.rule(CARTESIA, hedge_ms=80, first_output_ms=60_000)
    rig.sim.set_fault("tts", "cartesia", "slow", delay_s=0.6)
    rig.sim.set_fault("tts", "groq", "hang")
    assert words_in(await rig.say()) == WORDS
    assert rig.link.ends() == [(CARTESIA, "ok"), (GROQ, "abandoned")]
    assert rig.tts.voice_target == CARTESIA


async def test_an_understudy_that_fails_leaves_the_first_voice_its_time(rig: Rig) -> None:
    rig.link.rule(CARTESIA, hedge_ms=80, first_output_ms=60_000)
    rig.sim.set_fault("tts", "cartesia", "slow", delay_s=0.6)
    rig.sim.set_fault("tts", "groq", "status", status=503)
    assert words_in(await rig.say()) == WORDS
    assert rig.link.ends() == [(CARTESIA, "ok"), (GROQ, "overloaded")]


async def test_a_late_voice_that_fails_leaves_the_segment_to_its_understudy(rig: Rig) -> None:
    rig.link.rule(CARTESIA, hedge_ms=80, first_output_ms=300)
    rig.sim.set_fault("tts", "cartesia", "hang")
    rig.sim.set_fault("tts", "groq", "slow", delay_s=0.6)
    assert words_in(await rig.say()) == WORDS
    assert rig.link.ends() == [(CARTESIA, "first_output_timeout"), (GROQ, "ok")]


async def test_a_voice_in_time_has_none(rig: Rig) -> None:
    rig.link.rule(CARTESIA, hedge_ms=5_000)
    await rig.say()
    assert rig.link.ends() == [(CARTESIA, "ok")]


@pytest.mark.parametrize("after_chunks", [2, 5, 9, 14, 23, 40])
async def test_cut_voice_with_word_times_loses_and_repeats_nothing(rig: Rig, after_chunks: int) -> None:
    rig.sim.set_fault("tts", "cartesia", "cut", after_chunks=after_chunks)
    frames = await rig.say()
    assert words_in(frames) == WORDS
    assert "".join(told(frames)).split() == WORDS
    starts = [piece.start_time for piece in told(frames)]
    assert starts == sorted(starts)
    assert rig.link.ends()[-1] == (GROQ, "ok")


async def test_audio_that_nobody_continues_ends_on_a_word(rig: Rig) -> None:
    rig.sim.set_fault("tts", "cartesia", "cut", after_chunks=9)
    rig.sim.set_fault("tts", "groq", "status", status=500)
    frames: list[rtc.AudioFrame] = []
    with pytest.raises(APIError):
        await rig.say(into=frames)
    heard = words_in(frames)
    assert heard == WORDS[: len(heard)]
    assert 0 < len(heard) < len(WORDS)
    # Half a word cannot be decoded, so the length has to tell: it ends where the last whole word does.
    last = told(frames)[-1]
    assert str(last).strip() == heard[-1]
    assert sum(frame.duration for frame in frames) == pytest.approx(last.end_time, abs=0.005)


async def test_cut_voice_without_word_times_repeats_one_sentence_at_most(rig: Rig) -> None:
    rig.link.rule(CARTESIA, admit=0.0)
    rig.sim.set_fault("tts", "groq", "cut", after_chunks=6)
    rig.link.rule(CARTESIA, admit=1.0, rank=1)
    frames = await rig.say()
    heard = words_in(frames)
    assert heard[-len(WORDS) :] == WORDS
    assert len(heard) <= len(WORDS) + len(WORDS[:10])  # the first sentence
    assert "".join(told(frames)).split() == WORDS
    assert rig.link.ends() == [(GROQ, "cut"), (CARTESIA, "ok")]


async def test_a_voice_that_promised_word_times_and_gives_none_repeats_one_sentence_at_most(rig: Rig) -> None:
    rig.cartesia.update_options(language="it")
    assert words_in(await rig.say()) == WORDS
    rig.sim.set_fault("tts", "cartesia", "cut", after_chunks=4, share=0.5)
    frames = await rig.say()
    heard = words_in(frames)
    assert heard[-len(WORDS[10:]) :] == WORDS[10:]
    assert len(WORDS) <= len(heard) <= len(WORDS) + 10, "none lost, no other sentence twice"
    assert "".join(told(frames)).split() == WORDS
    assert rig.link.ends() == [(CARTESIA, "ok"), (CARTESIA, "cut"), (GROQ, "ok")]


@pytest.mark.parametrize("share", [0.5, 0.34, 1.0])
async def test_a_sentence_that_is_silence_is_the_next_voices(rig: Rig, share: float) -> None:
    rig.tts = GuardedTTS([rig.groq, rig.cartesia], rig.link)
    rig.sim.set_fault("tts", "groq", "silent", share=share)
    frames = await rig.say()
    assert words_in(frames) == WORDS
    assert "".join(told(frames)).split() == WORDS
    assert rig.link.ends() == [(GROQ, "silent"), (CARTESIA, "ok")]


async def test_stalled_voice_is_followed_by_the_next(rig: Rig) -> None:
    rig.impatient()
    async with rig.tts.stream() as stream:
        frames: list[rtc.AudioFrame] = []
        stream.push_text(TEXT)
        stream.end_input()
        async for event in stream:
            frames.append(event.frame)
            if len(frames) == 2:
                freeze(rig)
    assert words_in(frames) == WORDS
    assert rig.link.ends() == [(CARTESIA, "stalled"), (GROQ, "ok")]


async def test_a_voice_that_hangs_is_left_when_what_it_gave_was_played(rig: Rig) -> None:
    rig.link.deadlines(CARTESIA, first_output_ms=1500, stall_ms=60_000)
    rig.sim.set_fault("tts", "cartesia", "hang", mid_stream=True, after_chunks=3)
    assert (words_in(await rig.say()), rig.link.ends()) == (WORDS, [(CARTESIA, "stalled"), (GROQ, "ok")])


def freeze(rig: Rig) -> None:
    """The first voice's socket goes on, but nothing comes from it any more."""
    pool: Any = rig.cartesia._pool  # pyright: ignore[reportPrivateUsage] - the only way to the live socket
    for socket in pool._connections:
        socket._response.connection.transport.pause_reading()


async def test_stale_pooled_socket_is_nobodys_fault(rig: Rig) -> None:
    await rig.say("A first sentence here.")
    rig.sim.set_fault("tts", "cartesia", "cut", after_chunks=0)
    rig.sim.clear_faults()
    pool: Any = rig.cartesia._pool  # pyright: ignore[reportPrivateUsage] - a socket that died while it was idle
    for socket in list(pool._connections):
        socket._response.connection.transport.abort()
    frames = await rig.say("A second sentence here.")
    assert words_in(frames) == ["A", "second", "sentence", "here."]
    assert [target for target, _ in rig.link.ends()] == [CARTESIA] * 3
    assert [end for _, end in rig.link.ends()] == ["ok", "local", "ok"]


async def test_a_verdict_moves_a_waiting_segment_on(rig: Rig) -> None:
    rig.link.deadlines(CARTESIA, first_output_ms=3_600_000, stall_ms=3_600_000)
    rig.sim.set_fault("tts", "cartesia", "hang")
    async with rig.tts.stream() as stream:
        stream.push_text(TEXT)
        stream.end_input()
        frames: list[rtc.AudioFrame] = []

        async def verdict() -> None:
            await wait_until(lambda: rig.link.attempts, "the attempt has begun")
            rig.link.rule(CARTESIA, admit=0.0)

        task = asyncio.create_task(verdict())
        frames = [event.frame async for event in stream]
        await task
    assert words_in(frames) == WORDS
    assert rig.link.ends() == [(CARTESIA, "abandoned"), (GROQ, "ok")]


async def test_an_interrupted_segment_counts_against_nobody(rig: Rig) -> None:
    async with rig.tts.stream() as stream:
        stream.push_text(TEXT)
        stream.end_input()
        async for _ in stream:
            break
    assert rig.link.ends() == [(CARTESIA, "abandoned")]


async def test_all_voices_dead_raises_livekits_error_once(rig: Rig) -> None:
    rig.sim.set_fault("tts", "cartesia", "status", status=503)
    rig.sim.set_fault("tts", "groq", "status", status=500)
    with pytest.raises(APIError) as raised:
        await rig.say()
    assert [error.recoverable for error in rig.errors] == [False]
    assert "key" not in str(raised.value)
    assert {target for target, _ in rig.link.ends()} == {CARTESIA, GROQ}


@pytest.mark.parametrize("text", ["...", " ", "\u2026 !?"])
async def test_text_without_words_is_no_fault(rig: Rig, text: str) -> None:
    await rig.say(text)
    assert all(end in ("ok", "abandoned") for _, end in rig.link.ends())
    assert rig.errors == []


async def test_no_text_at_all(rig: Rig) -> None:
    async with rig.tts.stream() as stream:
        stream.end_input()
        assert [event async for event in stream] == []
    assert rig.errors == []


async def test_a_flush_is_as_good_as_the_end(rig: Rig) -> None:
    async with rig.tts.stream() as stream:
        stream.flush()
        stream.push_text("One moment, please.")
        stream.flush()
        frames = await asyncio.wait_for(heard(stream), 20)
    assert words_in(frames) == ["One", "moment,", "please."]


async def heard(stream: tts.SynthesizeStream) -> list[rtc.AudioFrame]:
    return [event.frame async for event in stream]


async def test_synthesize_fails_over_too(rig: Rig) -> None:
    rig.sim.set_fault("tts", "cartesia", "cut", after_chunks=5)
    frame = await rig.tts.synthesize(TEXT).collect()
    assert words_in([frame]) == WORDS


@pytest.mark.parametrize("other", [16_000, 44_100])
async def test_a_voice_that_changes_its_rate_keeps_its_pace(rig: Rig, other: int) -> None:
    rate = rig.tts.sample_rate
    first = await rig.say()
    # As plugins do whose service decides anew for each segment; what the plugin declares stays what it was.
    cast("Any", rig.cartesia)._opts.sample_rate = other
    second = await rig.say()
    assert words_in(second) == WORDS
    assert {frame.sample_rate for frame in [*first, *second]} == {rate}
    lengths = [sum(frame.duration for frame in frames) for frames in (first, second)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.1)
    assert [(piece, round(piece.start_time, 1)) for piece in told(second)] == [
        (piece, round(piece.start_time, 1)) for piece in told(first)
    ]
    assert rig.link.ends() == [(CARTESIA, "ok")] * 2
