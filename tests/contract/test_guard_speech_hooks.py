"""What the speech guards rely on inside livekit's plugins: an upgrade that moves it fails here, loudly."""

from __future__ import annotations

import inspect
from typing import Any, cast

from livekit.agents import inference, stt, tts
from livekit.plugins import cartesia
from livekit.plugins.cartesia._recognize_streams import auto_finalize_recognize_stream as turns
from livekit.plugins.cartesia._recognize_streams import legacy_recognize_stream as whisper


def source(thing: object) -> str:
    return inspect.getsource(cast("Any", thing))


def test_plugins_say_when_text_was_handed_over() -> None:
    assert callable(cast("Any", tts.SynthesizeStream)._mark_started)
    assert "_mark_started()" in source(cartesia.tts.SynthesizeStream)
    assert "_mark_started()" in source(tts.StreamAdapterWrapper)


def test_a_reused_socket_is_known() -> None:
    assert "_connection_reused" in source(tts.SynthesizeStream)
    assert "_connection_reused" in source(cartesia.tts.SynthesizeStream)


def test_an_empty_voice_is_known_by_its_words() -> None:
    assert 'raise APIError(f"no audio frames were pushed' in source(tts.SynthesizeStream)
    assert 'raise APIError(f"no audio frames were pushed' in source(tts.ChunkedStream)


def test_cartesias_events_pass_one_method_and_made_up_ones_do_not() -> None:
    for stream in (turns.AutoFinalizeRecognizeStream, whisper.LegacyRecognizeStream):
        assert list(inspect.signature(cast("Any", stream)._process_stream_event).parameters) == [
            "self",
            "data",
        ]
        assert "self._speaking" in source(stream)


def test_adapters_keep_what_they_wrap_where_we_look() -> None:
    assert "self._wrapped_tts = tts" in source(tts.StreamAdapter)
    assert "self._vad = vad" in source(stt.StreamAdapter)


async def test_the_vads_options_are_where_we_look() -> None:
    stream: Any = inference.VAD().stream()
    try:
        assert isinstance(stream._opts.min_silence_duration, float)
        assert isinstance(stream._opts.prefix_padding_duration, float)
        stream.update_options(min_silence_duration=0.5, prefix_padding_duration=0.4)
        assert stream._opts.prefix_padding_duration == 0.4
    finally:
        await stream.aclose()
