"""The stream `recording`: the engine's inputs with their times, so that a policy can be tried on them.

An entry holds a batch: `m` is a version byte and the deflated MessagePack of `[[now_ms, input], …]`; `n`
is how many they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from supervisor.core.inputs import Input
from supervisor.wire.keys import FIELD

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.wire.keys import Keys

_PREFIX: Final = b"\x01"
MAX_INPUTS: Final = 200_000
MAX_AGE_MS: Final = 3_600_000
# Far above any batch that is written; what would unfold to more is not ours.
_MAX_UNFOLDED: Final = 64 * 1024 * 1024

Timed = tuple[int, Input]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Timed])


def encode_batch(inputs: Sequence[Timed]) -> dict[str, bytes | str]:
    """The fields of one entry."""
    return {FIELD: _PREFIX + zlib.compress(_encoder.encode(inputs), 1), "n": str(len(inputs))}


def decode_batch(raw: bytes | None) -> list[Timed] | None:
    """The inputs of one entry; None when it cannot be read."""
    if not raw or raw[:1] != _PREFIX:
        return None
    try:
        unfolder = zlib.decompressobj()
        body = unfolder.decompress(raw[1:], _MAX_UNFOLDED)
        return None if unfolder.unconsumed_tail else _decoder.decode(body)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


async def read_recording(
    client: redis.asyncio.Redis, keys: Keys, after: str = "-", count: int = 100
) -> tuple[list[Timed], str | None]:
    """Some inputs in order, and the `after` of the next call (None: that was all)."""
    raw = cast(
        "list[tuple[bytes, dict[bytes, bytes]]]",
        await cast("Any", client).xrange(keys("recording"), after, "+", count=count),
    )
    inputs: list[Timed] = []
    for _, fields in raw:
        inputs.extend(decode_batch(fields.get(FIELD.encode())) or [])
    return inputs, f"({raw[-1][0].decode()}" if len(raw) == count else None


async def trim_recording(client: redis.asyncio.Redis, keys: Keys, redis_ms: int) -> None:
    """Let go of what is older than an hour."""
    oldest = max(0, redis_ms - MAX_AGE_MS)
    await cast("Any", client).xtrim(keys("recording"), minid=oldest, approximate=True)
