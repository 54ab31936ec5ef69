"""Which voices sound alike: when a call has to change its voice, at least gender and language stay.

The table holds voices that the providers themselves describe; anything else is given as an option
(`GuardedTTS(voices=...)`). A voice that is in no table is left as the plugin has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from worker.guard.names import provider_of, unwrap

Gender = Literal["female", "male", "neutral"]


class Voice(NamedTuple):
    """A provider's voice. `language` is ISO 639-1; "" fits every language."""

    id: str
    gender: Gender
    language: str = ""


VoiceTable = Mapping[str, Sequence[Voice]]

# Groq: console.groq.com/docs/text-to-speech/orpheus. Cartesia: the voices LiveKit and Cartesia recommend for
# agents. OpenAI's voices speak every language.
VOICES: Final[VoiceTable] = {
    "cartesia": (
        Voice("f786b574-daa5-4673-aa0c-cbe3e8534c02", "female", "en"),  # Katie, the plugin's default
        Voice("9626c31c-bec5-4cca-baa8-f8ba9e84c8bc", "female", "en"),  # Jacqueline
        Voice("f31cc6a7-c1e8-4764-980c-60a361443dd1", "female", "en"),  # Robyn
        Voice("a167e0f3-df7e-4d52-a9c3-f949145efdab", "male", "en"),  # Blake
        Voice("5c5ad5e7-1020-476b-8b91-fdcbe9cc313c", "female", "es"),  # Daniela
    ),
    "groq": (
        Voice("autumn", "female", "en"),
        Voice("diana", "female", "en"),
        Voice("hannah", "female", "en"),
        Voice("austin", "male", "en"),
        Voice("daniel", "male", "en"),
        Voice("troy", "male", "en"),
        Voice("lulwa", "female", "ar"),
        Voice("noura", "female", "ar"),
        Voice("fahad", "male", "ar"),
        Voice("sultan", "male", "ar"),
    ),
    "openai": (
        Voice("coral", "female"),
        Voice("nova", "female"),
        Voice("sage", "female"),
        Voice("shimmer", "female"),
        Voice("ash", "male"),
        Voice("echo", "male"),
        Voice("onyx", "male"),
        Voice("verse", "male"),
        Voice("alloy", "neutral"),
    ),
}


def find(provider: str, voice_id: str, extra: VoiceTable | None = None) -> Voice | None:
    """What is known of a voice; the caller's own table goes first."""
    for table in (extra or {}, VOICES):
        for voice in table.get(provider, ()):
            if voice.id == voice_id:
                return voice
    return None


def match(wanted: Voice, provider: str, current: str, extra: VoiceTable | None = None) -> str | None:
    """The provider's voice to use instead of `current`; None when that one fits or nothing better is known."""
    known = find(provider, current, extra)
    if known is None or _fit(wanted, known) == 2:
        return None  # one that is in no table (a clone, most often) was chosen with care
    offered = [*(extra or {}).get(provider, ()), *VOICES.get(provider, ())]
    best = max(offered, key=lambda voice: _fit(wanted, voice), default=None)
    if best is None or _fit(wanted, best) <= _fit(wanted, known):
        return None
    return best.id


def _fit(wanted: Voice, offered: Voice) -> int:
    """2: language and gender agree; 1: the language; 0: not even that."""
    if wanted.language and offered.language and wanted.language != offered.language:
        return 0
    return 2 if wanted.gender == offered.gender else 1


def voice_id_of(plugin: Any) -> str:
    """The voice a plugin is set to; "" when it does not say."""
    options = getattr(unwrap(plugin), "_opts", None)
    voice = getattr(options, "voice", "")
    return voice if isinstance(voice, str) else ""


def is_known(plugin: Any, extra: VoiceTable | None = None) -> bool:
    """Whether a table says what the plugin's voice is like."""
    return find(provider_of(plugin), voice_id_of(plugin), extra) is not None


def take_voice_of(plugin: Any, model: Any, extra: VoiceTable | None = None) -> str | None:
    """Set `plugin` to a voice like `model`'s. Gives back the voice now set, None when nothing was changed."""
    wanted = find(provider_of(model), voice_id_of(model), extra)
    inner = unwrap(plugin)
    update = getattr(inner, "update_options", None)
    if wanted is None or update is None:
        return None
    chosen = match(wanted, provider_of(inner), voice_id_of(inner), extra)
    if chosen is None:
        return None
    try:
        update(voice=chosen)
    except (TypeError, ValueError):
        return None
    return chosen


def put_back(plugin: Any, taken: str, own: str) -> None:
    """Undo `take_voice_of`, unless somebody has changed the voice since."""
    if voice_id_of(plugin) == taken:
        with contextlib.suppress(TypeError, ValueError):  # it took a voice this way before
            unwrap(plugin).update_options(voice=own)
