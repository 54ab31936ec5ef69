"""Words are read back exactly from any audio, or not at all."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import rtc

from worker.simulator.sound import encode_audio
from worker.simulator.speech import sentences
from worker.simulator.wordcode import (
    MAX_WORD_BYTES,
    TAIL_S,
    Decoder,
    Pcm,
    code_duration_s,
    decode,
    encode_word,
    mix,
    speak,
)

RATES = [16_000, 24_000, 44_100, 48_000]
plain_words = st.text("abcdefghijklmnopqrstuvwxyz'-.,?!", min_size=1, max_size=20)
any_words = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=12)
words = st.lists(plain_words | any_words | plain_words.map(str.capitalize), min_size=1, max_size=6)
few = settings(max_examples=40, deadline=None)


@few
@given(words, st.sampled_from(RATES))
def test_what_is_spoken_is_read(said: list[str], rate: int) -> None:
    pcm, times = speak(said, rate)
    assert decode(pcm, rate) == said
    assert len(times) == len(said)
    assert times[-1][1] == pytest.approx(len(pcm) / rate)


@few
@given(words, st.lists(st.integers(1, 4_000), min_size=1, max_size=40))
def test_the_pieces_do_not_matter(said: list[str], sizes: list[int]) -> None:
    pcm, _ = speak(said, 16_000)
    whole = np.concatenate([pcm, np.zeros(800, np.int16)])
    decoder = Decoder(16_000)
    heard: list[str] = []
    at = 0
    for size in sizes:
        heard += [word.word for word in decoder.push(whole[at : at + size].tobytes())]
        at += size
    heard += [word.word for word in decoder.push(whole[at:])]
    assert heard == said


@few
@given(words, st.floats(0, 1))
def test_a_beginning_in_mid_word_loses_words_but_garbles_none(said: list[str], share: float) -> None:
    pcm, _ = speak(said, 16_000)
    heard = decode(pcm[int(share * len(pcm)) :], 16_000)
    assert heard == said[len(said) - len(heard) :]


@few
@given(words, st.floats(0, 1))
def test_a_truncated_word_is_not_read(said: list[str], share: float) -> None:
    pcm, times = speak(said, 16_000)
    end = int(share * len(pcm))
    # The code ends TAIL_S before its word, and bears the loss of part of its last symbol.
    spoken = [
        word for word, (_, end_s) in zip(said, times, strict=True) if end_s - 2 * TAIL_S <= end / 16_000
    ]
    assert decode(pcm[:end], 16_000) == said[: len(decode(pcm[:end], 16_000))]
    assert len(decode(pcm[:end], 16_000)) <= len(spoken)


@pytest.mark.parametrize("missing_s", [0.012, 0.03, 0.1])
@pytest.mark.parametrize("rate", RATES)
def test_the_last_word_cut_short_is_gone(rate: int, missing_s: float) -> None:
    pcm, _ = speak(["Amber", "bridge", "copper."], rate)
    assert decode(pcm[: -round(missing_s * rate)], rate) == ["Amber", "bridge"]


@pytest.mark.parametrize("quality", list(rtc.AudioResamplerQuality))
@pytest.mark.parametrize(
    ("source", "target"), [(24_000, 16_000), (48_000, 16_000), (24_000, 48_000), (48_000, 24_000)]
)
def test_resampling_harms_no_word(source: int, target: int, quality: rtc.AudioResamplerQuality) -> None:
    said = ["Hello,", "the", "extraordinarily", "quick", "Über-fox's", "42", "a", "weather?"]
    pcm, _ = speak(said, source)
    resampler = rtc.AudioResampler(source, target, quality=quality)
    frames: list[rtc.AudioFrame] = []
    for start in range(0, len(pcm), source // 50):
        piece = pcm[start : start + source // 50]
        frames += resampler.push(rtc.AudioFrame(piece.tobytes(), source, 1, len(piece)))
    frames += resampler.flush()
    assert decode(np.concatenate([np.frombuffer(frame.data, np.int16) for frame in frames]), target) == said


@pytest.mark.parametrize("kind", ["mp3", "opus", "flac"])
def test_compression_harms_no_word(kind: str) -> None:
    said = ["Hello,", "the", "extraordinarily", "quick", "fox's", "weather?"]
    rate = 48_000 if kind == "opus" else 24_000
    pcm, _ = speak(said, rate)
    pieces: list[Pcm] = []
    resampler: Any = av.AudioResampler("s16", "mono", rate)
    file: Any = av.open(io.BytesIO(encode_audio(pcm, rate, kind)))
    for frame in file.decode(audio=0):
        pieces += [piece.to_ndarray().reshape(-1) for piece in resampler.resample(frame)]
    file.close()
    assert decode(np.concatenate(pieces), rate) == said


@few
@given(st.integers(0, 2**32 - 1))
def test_noise_says_nothing(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 4_000, 32_000).clip(-32_768, 32_767).astype(np.int16)
    assert decode(noise, 16_000) == []


def test_words_are_heard_through_noise() -> None:
    said = ["Amber", "bridge", "copper."]
    pcm, _ = speak(said, 16_000)
    noise = np.random.default_rng(1).normal(0, 300, len(pcm))
    assert decode((pcm + noise).clip(-32_768, 32_767).astype(np.int16), 16_000) == said


def test_times_are_where_the_words_are() -> None:
    said = ["Amber", "a", "extraordinarily"]
    pcm, times = speak(said, 24_000)
    silence = np.zeros(24_000, np.int16)
    heard = Decoder(24_000).push(np.concatenate([silence, pcm, silence]))
    assert [word.word for word in heard] == said
    for word, (start_s, end_s) in zip(heard, times, strict=True):
        assert word.end_s == pytest.approx(1 + end_s, abs=0.002)
        assert 1 + start_s <= word.start_s
        assert word.end_s - word.start_s == pytest.approx(code_duration_s(word.word) + TAIL_S, abs=0.002)


def test_a_code_can_be_mixed_with_speech() -> None:
    rate = 16_000
    speech = (np.random.default_rng(3).normal(0, 6_000, 2 * rate)).clip(-32_768, 32_767).astype(np.int16)
    said = ["One", "two", "three", "four."]
    pcm, times = mix(said, speech, rate)
    assert decode(pcm, rate) == said
    assert times[-1][1] == pytest.approx(2.0)


def test_recorded_sentences_carry_their_words() -> None:
    assert len(sentences()) >= 10
    for sentence in sentences():
        assert decode(sentence.pcm, 16_000) == sentence.text.split()
        assert sentence.text[-1] in ".?"


@pytest.mark.parametrize("word", ["", "two words", "x" * (MAX_WORD_BYTES + 1), "é" * 32])
def test_what_has_no_code_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="word"):
        encode_word(word, 16_000)


def test_too_low_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="8000 Hz"):
        Decoder(8_000)
