"""Sound files are read and checked at the start; what cannot be played is an error there, never in the call."""

from __future__ import annotations

import os
import time
import wave
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from worker.recovery import AudioFileError, ErrorRecoveryManager
from worker.recovery.audio import MAX_BYTES, Clip, load_clip, pcm_of, write_file
from worker.recovery.own_voice import LOCK, LOCK_STALE_S, OwnVoice, VoiceCache, digest
from worker.recovery.sounds import Sounds


def tone(seconds: float = 0.5, sample_rate: int = 16_000, loud: int = 8000) -> bytes:
    at = np.arange(round(seconds * sample_rate)) / sample_rate
    return (loud * np.sin(2 * np.pi * 440 * at)).astype(np.int16).tobytes()


@pytest.mark.parametrize("suffix", ["wav", "ogg", "mp3", "flac", "opus"])
@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100, 48_000])
def test_formats_and_rates(tmp_path: Path, suffix: str, sample_rate: int) -> None:
    file = tmp_path / f"sorry.{suffix}"
    write_file(file, tone(0.5, sample_rate), sample_rate)
    clip = load_clip(file, "Sorry.")
    assert clip.seconds == pytest.approx(0.5, abs=0.08)
    samples = np.frombuffer(pcm_of(clip.frames), np.int16)
    peak = np.fft.rfftfreq(len(samples), 1 / clip.frames[0].sample_rate)[
        np.abs(np.fft.rfft(samples)).argmax()
    ]
    assert peak == pytest.approx(440, abs=5)
    assert {frame.num_channels for frame in clip.frames} == {1}


@pytest.mark.timeout(30)  # a minute, while each frame counted all before it
def test_a_long_file_of_short_frames(tmp_path: Path) -> None:
    file = tmp_path / "sorry.ogg"
    with av.open(str(file), "w", format="ogg") as output:
        stream = cast("Any", output).add_stream("libopus", rate=24_000, options={"frame_duration": "2.5"})
        stream.layout = "mono"
        frames = av.AudioResampler(format="flt", layout="mono", rate=24_000, frame_size=60)
        samples = np.frombuffer(tone(59, 24_000), np.int16).reshape(1, -1)
        whole = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        whole.sample_rate = 24_000
        for frame in frames.resample(whole):
            cast("Any", output).mux(stream.encode(frame))
        cast("Any", output).mux(stream.encode(None))
    assert load_clip(file).seconds == pytest.approx(59, abs=0.1)


async def test_a_clip_plays_from_the_beginning_each_time(tmp_path: Path) -> None:
    file = tmp_path / "sorry.wav"
    write_file(file, tone(), 16_000)
    clip = load_clip(file)
    for _ in range(2):
        assert len([frame async for frame in clip.play()]) == len(clip.frames)


def wrong_file(tmp_path: Path, what: str) -> Path:
    file = tmp_path / "sorry.wav"
    match what:
        case "missing":
            pass
        case "empty":
            file.touch()
        case "folder":
            file.mkdir()
        case "garbage":
            file.write_bytes(os.urandom(5000))
        case "text":
            file.write_text("this is no sound")
        case "headers only":
            with wave.open(str(file), "wb") as header:
                header.setparams((1, 2, 16_000, 0, "NONE", ""))
        case "silent":
            write_file(file, bytes(32_000), 16_000)
        case "too long":
            write_file(file, tone(70), 16_000)
        case "too large":
            with file.open("wb") as sparse:
                sparse.truncate(MAX_BYTES + 1)
        case _:
            file = tmp_path / "sorry.txt"
            write_file(tmp_path / "sorry.wav", tone(), 16_000)
            (tmp_path / "sorry.wav").rename(file)
    return file


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("missing", "no such file"), ("empty", "is empty"), ("folder", "not a file"), ("garbage", "no sound"),
        ("text", "no sound"), ("headers only", "no sound"), ("silent", "silent"), ("too long", "longer than 60 s"),
        ("too large", "larger than"), ("wrong suffix", "must be one of"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path: Path, what: str, says: str) -> None:
    file = wrong_file(tmp_path, what)
    with pytest.raises(AudioFileError, match=says) as caught:
        ErrorRecoveryManager(custom_audio_path=file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_users_file_then_the_own_voice_then_the_recording(tmp_path: Path) -> None:
    own = OwnVoice(VoiceCache(tmp_path / "cache"))
    mine = tmp_path / "mine.wav"
    write_file(mine, tone(0.4), 16_000)
    sounds = Sounds(own)
    assert sounds.clip(final=False, texts=["a"]).text.startswith("I'm sorry")
    assert sounds.clip(final=True, texts=["a"]).text.endswith("Goodbye.")
    spoken = Clip("b", load_clip(mine).frames)
    own._key = KEY  # pyright: ignore[reportPrivateUsage] - as if synthesised
    own._clips[digest("b", KEY)] = spoken  # pyright: ignore[reportPrivateUsage] - the same
    assert sounds.clip(final=False, texts=["a", "b"]) is spoken
    sounds.use(mine)
    assert sounds.clip(final=False, texts=["a", "b"]).text == ""
    assert sounds.clip(final=True, texts=["a"]).text.endswith("Goodbye."), "an apology is no goodbye"


KEY = {"provider": "x", "model": "y", "voice": "z", "language": "en"}


def test_another_voice_is_another_sound() -> None:
    names = {digest("Sorry.", KEY | {part: "other"}) for part in KEY}
    names |= {digest("Sorry.", KEY), digest("Sorry!", KEY)}
    assert len(names) == 6


def wav(tmp_path: Path, seconds: float = 0.5) -> bytes:
    file = tmp_path / "made.wav"
    write_file(file, tone(seconds), 16_000)
    return file.read_bytes()


def test_the_cache_keeps_and_gives_back(tmp_path: Path) -> None:
    cache = VoiceCache(tmp_path / "deep" / "cache")
    name = digest("Sorry.", KEY)
    assert cache.read(name, "Sorry.") is None
    assert cache.write(name, wav(tmp_path), {"text": "Sorry."} | KEY)
    clip = cache.read(name, "Sorry.")
    assert clip is not None
    assert clip.text == "Sorry."
    (entry,) = cache.entries()
    assert (entry["text"], entry["voice"]) == ("Sorry.", "z")


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    data = wav(tmp_path)
    cache = VoiceCache(tmp_path / "cache", max_bytes=len(data) * 3, max_files=10)
    for number in range(8):
        cache.write(f"{number:032x}", data, {"text": str(number)})
        os.utime(cache.folder / f"{number:032x}.wav", (number, number))
    assert {entry["text"] for entry in cache.entries()} <= {"5", "6", "7"}
    assert len(list(cache.folder.iterdir())) == 2 * len(cache.entries())


def test_a_damaged_file_is_thrown_away(tmp_path: Path) -> None:
    cache = VoiceCache(tmp_path)
    (tmp_path / "abc.wav").write_bytes(b"RIFFnonsense")
    assert cache.read("abc", "x") is None
    assert not (tmp_path / "abc.wav").exists()


def test_a_damaged_note_beside_a_sound_is_left_out_of_the_list(tmp_path: Path) -> None:
    for number, note in enumerate(("[1]", "7", '"words"', "{", "")):
        (tmp_path / f"{number}.wav").write_bytes(b"sound")
        (tmp_path / f"{number}.json").write_text(note)
    entries = VoiceCache(tmp_path).entries()
    assert sorted(entry["name"] for entry in entries) == ["0", "1", "2", "3", "4"]
    assert all(set(entry) == {"name", "bytes", "path"} for entry in entries)


def test_a_folder_that_cannot_be_made_means_no_sound(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "cache", tmp_path / ("long" * 100)):
        cache = VoiceCache(folder)
        assert cache.write("abc", b"x", {}) is False
        assert cache.read("abc", "x") is None
        assert cache.entries() == []


def test_one_maker_of_sounds_at_a_time_and_none_that_died_is_waited_for(tmp_path: Path) -> None:
    one, other = VoiceCache(tmp_path), VoiceCache(tmp_path)
    assert one.lock()
    assert not other.lock()
    long_ago = time.time() - LOCK_STALE_S - 1
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    assert other.lock()
    other.unlock()
    assert one.lock()


def test_a_sound_that_cannot_be_kept_leaves_nothing_behind(tmp_path: Path) -> None:
    name = digest("Sorry.", KEY)
    (tmp_path / f"{name}.wav").mkdir()  # nothing can take its place
    assert not VoiceCache(tmp_path).write(name, b"sound", {})
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}.wav"]
