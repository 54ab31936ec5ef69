"""How recovery behaves. Times in seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from worker.guard.voices import VoiceTable

OnExhausted = Literal["close", "transfer", "stay"]
TransferHook = Callable[[Any], Awaitable[Any] | Any]

ON_EXHAUSTED: Final = ("close", "transfer", "stay")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOptions:
    """See `setup_error_handling`. Raises ValueError for values that cannot be meant.

    language: of the messages, e.g. `de`; "": the TTS's or STT's own, then the settings', then English.
    on_exhausted: after the final message `close` the session, `transfer` it (`transfer(session)` is called, sync or
    async; an Agent that it returns takes over), or `stay`.
    end_job: in a worker of ours a call that recovery closed ends its job as well.
    final_audio_path: a sound file for the final message when the voice is gone.
    own_voice: have the messages spoken by the session's TTS while it is healthy, and kept in `cache_dir`.
    sticky_voice: a voice that had to take over keeps speaking until the call ends. match_voices: it is given one of
    the same gender and language where both are known; voices: adds to that table (`worker.guard.voices`).
    add_to_chat_ctx: let the model know what was said on its behalf.
    min_gap_s: between two apologies in one turn. patience_s: after so long without a sound, with nobody left who
    could answer, the caller gets an apology at once. stuck_after_s: `thinking` for so long is a fault (0: never). Both
    count anew after a tool, a hand-off and a reply that began late.
    deaf_after_s: speech without a transcript for so long is a fault (0: never). apologise_when_empty: an answer
    without words, tool calls or errors is a fault. handler_timeout_s: how long handlers are waited for.
    """

    language: str = ""
    on_exhausted: OnExhausted = "close"
    transfer: TransferHook | None = None
    end_job: bool = True
    final_audio_path: str | Path | None = None
    own_voice: bool = True
    cache_dir: str | Path | None = None
    sticky_voice: bool = True
    match_voices: bool = True
    voices: VoiceTable | None = None
    add_to_chat_ctx: bool = False
    min_gap_s: float = 3.0
    patience_s: float = 2.2
    stuck_after_s: float = 8.0
    deaf_after_s: float = 2.0
    apologise_when_empty: bool = True
    handler_timeout_s: float = 0.25
    guard: bool = True
    emoji: bool = False

    @property
    def voice_choice(self) -> dict[str, Any]:
        """How `GuardedTTS` chooses among voices."""
        return {"sticky": self.sticky_voice, "match_voices": self.match_voices, "voices": self.voices}

    def __post_init__(self) -> None:
        if self.on_exhausted not in ON_EXHAUSTED:
            raise ValueError(f"on_exhausted: must be one of {', '.join(ON_EXHAUSTED)}")
        if self.on_exhausted == "transfer" and not callable(self.transfer):
            raise ValueError("on_exhausted='transfer' needs transfer=, a function that takes the session")
        for name in ("min_gap_s", "patience_s", "stuck_after_s", "deaf_after_s", "handler_timeout_s"):
            if not getattr(self, name) >= 0:  # nor NaN
                raise ValueError(f"{name}: must be 0 or more")
