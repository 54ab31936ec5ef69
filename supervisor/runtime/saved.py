"""What a leader leaves to the next one: the engine's state and how far it had read. Kept in `state` and on disk."""

from __future__ import annotations

from typing import Final

import msgspec

# Names the layout: a build that does not know it begins anew rather than guess.
_PREFIX: Final = b"\x01"


class InboxMark(msgspec.Struct, frozen=True, array_like=True):
    """How far a worker's stream was read, and which of its boots was heard."""

    cursor: str
    boot: str = ""


class Saved(msgspec.Struct, frozen=True, array_like=True):
    """at_ms: the engine's time. overrides, policies: scopes that the engine had been told."""

    at_ms: int
    epoch: int
    revision: int
    engine: bytes
    inboxes: dict[str, InboxMark] = {}
    commands: str = "0-0"
    overrides: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int, int]:
        """Of two, the one with the higher order is the newer."""
        return (self.epoch, self.at_ms, self.revision)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Saved)


def encode_saved(saved: Saved) -> bytes:
    """As it is kept."""
    return _PREFIX + _encoder.encode(saved)


def decode_saved(raw: bytes | None) -> Saved | None:
    """What was kept; None when there is nothing, or nothing that this build can read."""
    if not raw or raw[:1] != _PREFIX:
        return None
    try:
        return _decoder.decode(memoryview(raw)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
