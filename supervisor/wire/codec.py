"""Bytes to messages and back: one version byte, then MessagePack.

`decode` raises `UnknownVersion`, `Oversized` or `Malformed` and nothing else, whatever the bytes.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from supervisor.wire import messages as m
from supervisor.wire.errors import Malformed, Oversized, UnknownVersion

VERSION: Final = 1
_PREFIX: Final = bytes([VERSION])
MAX_BYTES: Final = 64 * 1024  # 32 targets with every counter and a full histogram need about 12 KiB

_T = TypeVar("_T", bound=m.Message)

_encoder = msgspec.msgpack.Encoder()
_decoders: Final[dict[object, msgspec.msgpack.Decoder[object]]] = {}
_worker_decoder: Final = msgspec.msgpack.Decoder(m.WorkerMessage)


def encode(message: m.Message) -> bytes:
    """The message as it goes to Redis: version byte, then MessagePack."""
    return _PREFIX + _encoder.encode(message)


def _body(data: bytes) -> memoryview:
    if len(data) > MAX_BYTES:
        raise Oversized(f"message of {len(data)} bytes; at most {MAX_BYTES} are read")
    if not data:
        raise Malformed("message is empty")
    if data[0] != VERSION:
        raise UnknownVersion(f"message version {data[0]}; this build reads version {VERSION}")
    return memoryview(data)[1:]


def decode(data: bytes, kind: type[_T]) -> _T:
    """Read one message of the given type. Errors say what was wrong, never what the bytes held."""
    body = _body(data)
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(body)  # pyright: ignore[reportReturnType]  # the decoder was made for `kind`
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"{kind.__name__}: {type(exc).__name__}") from None


def decode_worker(data: bytes) -> m.WorkerMessage:
    """Read one entry of `in:<worker>`: a report, a probe's result or a goodbye."""
    body = _body(data)
    try:
        return _worker_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"worker message: {type(exc).__name__}") from None
