"""The real livekit plugins, pointed at stand-ins: the base URL is all it takes.

``url`` is a simulator's root, e.g. http://127.0.0.1:9100. Cartesia's and Groq's voices need an aiohttp session, which
livekit gives inside a job; elsewhere hand one in.
"""

from __future__ import annotations

from typing import Any

import aiohttp
from livekit.agents import stt, vad
from livekit.plugins import cartesia, groq, openai

from worker.simulator.server import BASE_PATHS

__all__ = [
    "cartesia_stt",
    "cartesia_tts",
    "groq_llm",
    "groq_stt",
    "groq_tts",
    "openai_llm",
    "openai_stt",
    "openai_tts",
]

KEY = "stand-in-key"


def base_url(url: str, provider: str) -> str:
    """What a provider's plugin takes as ``base_url``."""
    return url.rstrip("/") + BASE_PATHS[provider]


def groq_llm(url: str, model: str = "llama-3.3-70b-versatile", api_key: str = KEY) -> groq.LLM:
    """Groq's language models."""
    return groq.LLM(model=model, base_url=base_url(url, "groq"), api_key=api_key)


def openai_llm(url: str, model: str = "gpt-4.1-mini", api_key: str = KEY) -> openai.LLM:
    """OpenAI's language models."""
    return openai.LLM(model=model, base_url=base_url(url, "openai"), api_key=api_key)


def groq_stt(url: str, model: str = "whisper-large-v3-turbo", api_key: str = KEY) -> groq.STT:
    """Groq's Whisper; it does not stream (see ``streamed``)."""
    return groq.STT(model=model, base_url=base_url(url, "groq"), api_key=api_key)


def openai_stt(url: str, model: str = "gpt-4o-mini-transcribe", api_key: str = KEY) -> openai.STT:
    """OpenAI's transcription over HTTP; it does not stream (see ``streamed``)."""
    return openai.STT(model=model, base_url=base_url(url, "openai"), api_key=api_key, use_realtime=False)


def streamed(recogniser: stt.STT[Any], detector: vad.VAD) -> stt.StreamAdapter:
    """An STT that does not stream, cut into utterances by a VAD."""
    return stt.StreamAdapter(stt=recogniser, vad=detector)


def cartesia_stt(
    url: str, model: str = "ink-2", api_key: str = KEY, session: aiohttp.ClientSession | None = None
) -> cartesia.STT:
    """Cartesia's streaming STT: ink-2 or ink-whisper."""
    return cartesia.STT(
        model=model, base_url=base_url(url, "cartesia"), api_key=api_key, http_session=session
    )


def groq_tts(
    url: str,
    model: str = "canopylabs/orpheus-v1-english",
    api_key: str = KEY,
    session: aiohttp.ClientSession | None = None,
) -> groq.TTS:
    """Groq's voices, over HTTP."""
    return groq.TTS(model=model, base_url=base_url(url, "groq"), api_key=api_key, http_session=session)


def openai_tts(url: str, model: str = "gpt-4o-mini-tts", api_key: str = KEY) -> openai.TTS:
    """OpenAI's voices, over HTTP."""
    return openai.TTS(model=model, base_url=base_url(url, "openai"), api_key=api_key)


def cartesia_tts(
    url: str, model: str = "sonic-3", api_key: str = KEY, session: aiohttp.ClientSession | None = None
) -> cartesia.TTS:
    """Cartesia's voices: contexts on pooled WebSockets."""
    return cartesia.TTS(
        model=model, base_url=base_url(url, "cartesia"), api_key=api_key, http_session=session
    )
