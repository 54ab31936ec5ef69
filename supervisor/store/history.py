"""What `history:<target>` holds: counts in 5 s steps for an hour and in 1 min steps for a day, in ring slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec

if TYPE_CHECKING:
    import redis.asyncio

    from supervisor.wire.keys import Keys

_PREFIX: Final = b"\x01"


class Step(NamedTuple):
    """One resolution: slots are named `<prefix><number>` and used again after `slots` steps."""

    prefix: str
    length_ms: int
    slots: int

    def start(self, at_ms: int) -> int:
        """When the step that a moment falls into began."""
        return at_ms - at_ms % self.length_ms

    def field(self, at_ms: int) -> str:
        """The slot of that step."""
        return f"{self.prefix}{at_ms // self.length_ms % self.slots}"


FINE: Final = Step("s", 5_000, 720)
COARSE: Final = Step("m", 60_000, 1_440)


class HistoryPoint(msgspec.Struct, frozen=True, array_like=True):
    """What happened to a target within one step that began at `at_ms`, over the whole fleet.

    attempts: those begun. faults: by kind. histogram: first outputs by `HISTOGRAM_BOUNDS_MS`.
    """

    at_ms: int
    attempts: int = 0
    ok: int = 0
    faults: dict[str, int] = {}
    abandoned: int = 0
    first_outputs: int = 0
    histogram: tuple[int, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(HistoryPoint)


def encode_point(point: HistoryPoint) -> bytes:
    """As a slot holds it."""
    return _PREFIX + _encoder.encode(point)


def decode_point(raw: bytes | None) -> HistoryPoint | None:
    """A slot's content; None when it is empty or cannot be read."""
    if not raw or raw[:1] != _PREFIX:
        return None
    try:
        return _decoder.decode(memoryview(raw)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


async def read_history(
    client: redis.asyncio.Redis, keys: Keys, target: str, step: Step, now_ms: int, span_ms: int
) -> list[HistoryPoint]:
    """The steps of the last `span_ms`, oldest first; steps in which nothing happened are not there."""
    since = now_ms - min(span_ms, step.length_ms * step.slots)
    first, last = step.start(since), step.start(now_ms)
    fields = [step.field(at) for at in range(first, last + 1, step.length_ms)][-step.slots :]
    raw = cast("list[bytes | None]", await cast("Any", client).hmget(keys.history(target), fields))
    points = [point for point in map(decode_point, raw) if point is not None and first <= point.at_ms <= last]
    return sorted(points, key=lambda point: point.at_ms)
