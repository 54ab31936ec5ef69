"""`worker make-audio`: makes and checks the sound files that callers hear when the voice is gone."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from worker.recovery.own_voice import VoiceCache
    from worker.settings import WorkerSettings

ENGINES = ("auto", "tts", "espeak")
# Names of espeak-ng voices where they are not the language's own.
_ESPEAK = {"en": "en-us", "fr": "fr-fr", "pt": "pt-br", "zh": "cmn"}


class CannotMake(RuntimeError):
    """No sound could be made. The text is one line that says what to do."""


def make_audio(
    text: Annotated[
        str, typer.Option(help="what to say; otherwise the fallback messages of the language")
    ] = "",
    language: Annotated[
        str, typer.Option(help="language of the messages, e.g. de; otherwise WORKER_LANGUAGE")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="file to write (.wav, .ogg, .mp3, .flac); otherwise the voice cache is filled"),
    ] = None,
    check: Annotated[
        list[Path] | None, typer.Option(help="look at a sound file instead; may be given more than once")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="show what is cached")] = False,
    engine: Annotated[str, typer.Option(help="auto, tts (the configured voice) or espeak")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Make, check and list the sound that callers hear when the voice is gone.

    Example: worker make-audio --text "Sorry, please say that again." --out sorry.ogg
    """
    from worker.recovery.own_voice import VoiceCache
    from worker.settings import load_settings

    settings = load_settings(**({"language": language} if language else {}))
    cache = VoiceCache(Path(settings.audio_cache_dir).expanduser() if settings.audio_cache_dir else None)
    if engine not in ENGINES:
        _stop(f"--engine {engine}: must be one of {', '.join(ENGINES)}", as_json, code=2)
    if text and not text.strip():
        _stop("--text: holds no words", as_json, code=2)
    if check:
        _check(check, as_json)
        return
    if list_:
        _list(cache, as_json)
        return
    try:
        items = asyncio.run(_make(settings, cache, text, out, engine, quiet=as_json))
    except CannotMake as exc:
        _stop(str(exc), as_json)
    if as_json:
        typer.echo(json.dumps({"ok": True, "items": items}, ensure_ascii=False))


async def _make(
    settings: WorkerSettings, cache: VoiceCache, text: str, out: Path | None, engine: str, *, quiet: bool
) -> list[dict[str, Any]]:
    from worker.recovery.audio import AudioFileError, clip_of, load_clip, pcm_of, write_file
    from worker.recovery.own_voice import digest, voice_key
    from worker.recovery.phrases import FallbackMessages

    messages = FallbackMessages(settings.language)
    texts = [text] if text else [*messages["tts"], *([] if out else messages["final"])]
    if out is not None:
        texts = texts[:1]
    voice = await _Voice.open(settings, engine)
    items: list[dict[str, Any]] = []
    try:
        if out is None and voice.plugin is None:
            mend = f", or: {voice.why_not}" if voice.why_not else ""
            raise CannotMake(f"the voice cache holds the configured voice only; give --out FILE{mend}")
        for number, line in enumerate(texts, 1):
            if not quiet:
                typer.echo(f"[{number}/{len(texts)}] {voice.name}: {line}")
            wav = await voice.speak(line, messages.language if text else messages.spoken_language)
            try:
                clip = clip_of(wav, line, name=voice.name)
                if out is not None:
                    write_file(out, pcm_of(clip.frames), clip.frames[0].sample_rate)
                    clip = load_clip(out, line)
            except AudioFileError as exc:
                raise CannotMake(str(exc)) from None
            if out is not None:
                path = str(out)
            else:
                key = voice_key(voice.plugin, messages.language)
                name = digest(line, key)
                try:
                    cache.keep(name, wav, {"text": line} | key)
                except OSError:
                    raise CannotMake(
                        f"{cache.folder} cannot be written; set WORKER_AUDIO_CACHE_DIR"
                    ) from None
                path = str(cache.folder / f"{name}.wav")
            items.append({"path": path, "text": line, "seconds": round(clip.seconds, 2), "voice": voice.name})
            if not quiet:
                typer.echo(f"      {clip.seconds:.1f} s, {path}")
    finally:
        await voice.aclose()
    return items


class _Voice:
    """The configured TTS, or espeak-ng; `why_not`: what keeps the configured one from being used."""

    def __init__(self, name: str, plugin: Any = None, providers: Any = None, why_not: str = "") -> None:
        self.name, self.plugin, self._providers, self.why_not = name, plugin, providers, why_not

    @classmethod
    async def open(cls, settings: WorkerSettings, engine: str) -> _Voice:
        from worker.providers import build_providers
        from worker.settings import WrongSetting

        reason = ""
        if engine != "espeak":
            try:
                providers = build_providers(settings)
            except WrongSetting as exc:
                reason = str(exc)
            else:
                child = providers.tts[0]
                return cls(child.target, child.plugin, providers)
            if engine == "tts":
                raise CannotMake(reason)
        if shutil.which("espeak-ng") is None:
            raise CannotMake(
                f"{reason}; espeak-ng is not installed either" if reason else "espeak-ng is not installed"
            )
        return cls("espeak-ng", why_not=reason)

    async def speak(self, text: str, language: str) -> bytes:
        from worker.recovery.own_voice import synthesise

        if self.plugin is None:
            return await asyncio.to_thread(_espeak, text, language)
        try:
            frame = await synthesise(self.plugin, text)
        except Exception as exc:  # noqa: BLE001  # whatever the plugin raises; its text may hold the key
            raise CannotMake(
                f"{self.name} did not speak ({type(exc).__name__}); try `worker check --probe`"
            ) from None
        return frame.to_wav_bytes()

    async def aclose(self) -> None:
        if self._providers is not None:
            await self._providers.aclose()


def _espeak(text: str, language: str) -> bytes:
    voice = _ESPEAK.get(language, language)
    # The words go in by stdin, so that none of them can be taken for an option.
    made = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", "150", "--stdout", "--stdin"],  # noqa: S607  # wherever the user's PATH has it
        input=text.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    if made.returncode != 0 or not made.stdout:
        raise CannotMake(f"espeak-ng does not speak {language!r}; see `espeak-ng --voices`")
    return made.stdout


def _check(files: list[Path], as_json: bool) -> None:
    from worker.recovery.audio import AudioFileError, load_clip

    items: list[dict[str, Any]] = []
    for file in files:
        try:
            clip = load_clip(file)
        except AudioFileError as exc:
            items.append({"path": str(file), "ok": False, "detail": str(exc)})
        else:
            items.append({"path": str(file), "ok": True, "seconds": round(clip.seconds, 2), "detail": ""})
    good = all(item["ok"] for item in items)
    if as_json:
        typer.echo(json.dumps({"ok": good, "items": items}))
    else:
        for item in items:
            typer.echo(
                f"ok   {item['path']}: {item['seconds']} s" if item["ok"] else f"FAIL {item['detail']}"
            )
    if not good:
        raise typer.Exit(1)


def _list(cache: VoiceCache, as_json: bool) -> None:
    items = cache.entries()
    if as_json:
        typer.echo(json.dumps({"folder": str(cache.folder), "items": items}, ensure_ascii=False))
        return
    typer.echo(f"{cache.folder}: {len(items)} sounds, {sum(item['bytes'] for item in items) / 1024:.0f} KB")
    for item in items:
        voice = ":".join(str(item.get(part) or "-") for part in ("provider", "model", "voice", "language"))
        typer.echo(f"  {voice}  {item.get('text', '?')}")


def _stop(line: str, as_json: bool, code: int = 1) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"ok": False, "detail": line}))
    else:
        typer.echo(f"worker: {line}", err=True)
    raise typer.Exit(code)
