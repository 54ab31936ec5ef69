"""Apologies in the agent's own voice, made while it was healthy and kept on disk for when it is not.

A file's name is the digest of text, provider, model, voice and language. Nothing here is on the call path: sound is
made one message at a time while the agent only listens, and read before the call needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import structlog
from livekit import rtc
from livekit.agents import APIConnectOptions, tts

from worker.guard.names import model_of, provider_of, unwrap
from worker.guard.voices import voice_id_of
from worker.recovery.audio import AudioFileError, Clip, clip_of, load_clip

log = structlog.get_logger("worker.recovery")

CACHE_MAX_BYTES: Final = 64 * 1024 * 1024
CACHE_MAX_FILES: Final = 500
SYNTHESIS_TIMEOUT_S: Final = 15.0
LOCK: Final = ".making"
# Longer than any synthesis: its maker has died.
LOCK_STALE_S: Final = 60.0
LOCK_LOOK_S: Final = 0.5


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/livekit-supervisor/voice`, or under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "livekit-supervisor" / "voice"


def voice_key(plugin: Any, language: str) -> dict[str, str]:
    """What makes a voice the same voice."""
    return {
        "provider": provider_of(plugin),
        "model": model_of(plugin),
        "voice": voice_id_of(plugin),
        "language": language,
    }


def digest(text: str, key: dict[str, str]) -> str:
    """The name under which this text in this voice is kept."""
    whole = json.dumps([text, *(key[name] for name in ("provider", "model", "voice", "language"))])
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


class VoiceCache:
    """Sound files in a folder of at most `max_bytes` and `max_files`; the longest unused go first.

    A folder that cannot be written, a full disk or a damaged file only mean that there is no sound.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_bytes: int = CACHE_MAX_BYTES,
        max_files: int = CACHE_MAX_FILES,
    ) -> None:
        self.folder = folder or default_cache_dir()
        self._max_bytes = max_bytes
        self._max_files = max_files

    def read(self, name: str, text: str) -> Clip | None:
        """The sound kept under a name."""
        file = self.folder / f"{name}.wav"
        try:
            file.stat()
        except OSError:
            return None  # not there, or nobody may look
        try:
            clip = load_clip(file, text)
        except AudioFileError:
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return clip

    def write(self, name: str, wav: bytes, about: dict[str, str]) -> bool:
        """Keep a sound as `keep` does; whether it was kept."""
        try:
            self.keep(name, wav, about)
        except OSError as exc:
            log.warning("voice is not kept", action="recovery.voice_not_kept", error=type(exc).__name__)
            return False
        return True

    def keep(self, name: str, wav: bytes, about: dict[str, str]) -> None:
        """Keep a sound, and `about` beside it, for `worker make-audio --list`. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for suffix, data in (("wav", wav), ("json", json.dumps(about).encode())):
            half = self.folder / f".{name}.{secrets.token_hex(4)}"
            try:
                half.write_bytes(data)
                half.replace(self.folder / f"{name}.{suffix}")
            except OSError:
                half.unlink(missing_ok=True)
                raise
        self._tidy()

    def lock(self) -> bool:
        """Be the only one of all processes that makes a sound. Nobody is kept out of a folder that holds no lock."""
        lock = self.folder / LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if lock.exists() and time.time() - lock.stat().st_mtime > LOCK_STALE_S:
                lock.unlink(missing_ok=True)
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return True
        return True

    def unlock(self) -> None:
        """Let the next one."""
        with contextlib.suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)

    def entries(self) -> list[dict[str, Any]]:
        """What is kept: name, text, voice, bytes; newest first."""
        found: list[dict[str, Any]] = []
        for file in self._files():
            about: dict[str, Any] = {}
            with contextlib.suppress(OSError, ValueError, TypeError):
                about = dict(json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))
            with contextlib.suppress(OSError):  # another process may have thrown it away just now
                found.append({"name": file.stem, "bytes": file.stat().st_size, "path": str(file)} | about)
        return found

    def _files(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted(self.folder.glob("*.wav"), key=lambda f: f.stat().st_mtime, reverse=True)
        return []

    def _tidy(self) -> None:
        total = 0
        for number, file in enumerate(self._files()):
            total += file.stat().st_size
            if number >= self._max_files or (number and total > self._max_bytes):
                file.unlink(missing_ok=True)
                file.with_suffix(".json").unlink(missing_ok=True)


async def synthesise(plugin: tts.TTS[Any], text: str) -> rtc.AudioFrame:
    """One text spoken by a plugin, asked once. Raises what the plugin raises, or TimeoutError."""
    once = APIConnectOptions(max_retry=0, timeout=SYNTHESIS_TIMEOUT_S)
    async with asyncio.timeout(SYNTHESIS_TIMEOUT_S):
        return await plugin.synthesize(text, conn_options=once).collect()


class OwnVoice:
    """The messages of one session in its own voice.

    get(text) never waits. `prepare` reads what is on disk and has the rest made, each when `calm()` lets it.
    """

    def __init__(self, cache: VoiceCache) -> None:
        self.cache = cache
        self._clips: dict[str, Clip] = {}
        self._key: dict[str, str] | None = None

    def get(self, texts: Iterable[str]) -> Clip | None:
        """A clip for the first of these texts that there is one for, in the voice that was prepared last."""
        key = self._key
        if key is None:
            return None
        return next(
            (clip for text in texts if (clip := self._clips.get(digest(text, key))) is not None), None
        )

    async def prepare(
        self, plugin: tts.TTS[Any], texts: Iterable[str], language: str, calm: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Whether all are there now. `calm()` waits for a quiet moment; False: there will be none."""
        plugin = unwrap(plugin)
        key = self._key = voice_key(plugin, language)
        missing = [text for text in dict.fromkeys(texts) if not await self._read(text, key)]
        for text in missing:
            while True:
                if not await calm():
                    return False
                if await asyncio.to_thread(self.cache.lock):
                    break
                await asyncio.sleep(LOCK_LOOK_S)  # another call is at it, perhaps with these very words
            try:
                if not await self._read(text, key) and not await self._make(plugin, text, key):
                    return False
            finally:
                self.cache.unlock()
        return True

    async def _read(self, text: str, key: dict[str, str]) -> bool:
        name = digest(text, key)
        if name not in self._clips:
            clip = await asyncio.to_thread(self.cache.read, name, text)
            if clip is not None:
                self._clips[name] = clip
        return name in self._clips

    async def _make(self, plugin: tts.TTS[Any], text: str, key: dict[str, str]) -> bool:
        name = digest(text, key)
        try:
            frame = await synthesise(plugin, text)
            wav = frame.to_wav_bytes()
            self._clips[name] = await asyncio.to_thread(clip_of, wav, text)
        except Exception as exc:  # noqa: BLE001  # it may be as dead as what this is for; the exception may hold keys
            log.info("own voice not made", action="recovery.own_voice_failed", error=type(exc).__name__)
            return False
        await asyncio.to_thread(self.cache.write, name, wav, {"text": text} | key)
        return True
