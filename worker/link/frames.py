"""What goes over the container's Unix socket: a 4-byte big-endian length, then MessagePack.

From a job comes a list of events, from the container one message a frame. Both ends are of the same release
and the same container, so there are no versions; but whatever the bytes, reading raises `BadFrame` alone.
The job writes events as plain tuples (tag first), which is what the structs below are on the wire: making a
tuple is what the call path can afford.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from supervisor.wire.messages import Count, Directive, FaultEvent, ProbeResult, SessionInfo, Snapshot
from supervisor.wire.vocabulary import FaultKind, Role
from worker.link.api import Rule, Rules

MAX_FRAME: Final = 1024 * 1024
_HEADER: Final = struct.Struct(">I")

Attempt = Annotated[int, Meta(ge=0, lt=2**40)]
Name = Annotated[str, Meta(max_length=200)]

# Tags of what a job says.
HELLO, HOLD, STARTED, FIRST_OUTPUT, SUCCEEDED, FAILED, ABANDONED, SESSION, OFFER, PROBED, DROPPED = range(11)


class BadFrame(ValueError):
    """A frame cannot be read; says what was wrong, never what it held."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=HELLO):
    """First of all: which process this is."""

    pid: Count


class Held(msgspec.Struct, frozen=True, array_like=True, tag=HOLD):
    target: Name
    order: Count
    key_fp: Name


class Started(msgspec.Struct, frozen=True, array_like=True, tag=STARTED):
    """at_mono: CLOCK_MONOTONIC seconds, one clock for all processes of a host."""

    attempt: Attempt
    target: Name
    deadline_ms: int
    at_mono: float


class FirstOutput(msgspec.Struct, frozen=True, array_like=True, tag=FIRST_OUTPUT):
    attempt: Attempt
    waited_ms: Count


class Succeeded(msgspec.Struct, frozen=True, array_like=True, tag=SUCCEEDED):
    """`target` stands in every outcome, so that one whose start was dropped still counts."""

    attempt: Attempt
    target: Name
    tokens: Count
    characters: Count
    audio_ms: Count


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=FAILED):
    attempt: Attempt
    target: Name
    kind: FaultKind
    event: FaultEvent | None
    retry_after_ms: Count


class Abandoned(msgspec.Struct, frozen=True, array_like=True, tag=ABANDONED):
    attempt: Attempt
    target: Name


class Session(msgspec.Struct, frozen=True, array_like=True, tag=SESSION):
    info: SessionInfo


class Offer(msgspec.Struct, frozen=True, array_like=True, tag=OFFER):
    """This process runs probes for the role, or no longer does."""

    role: Role
    on: bool


class Probed(msgspec.Struct, frozen=True, array_like=True, tag=PROBED):
    result: ProbeResult


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag=DROPPED):
    """So many events were dropped because this end's queue was full."""

    count: Count


JobEvent = (
    Hello | Held | Started | FirstOutput | Succeeded | Failed | Abandoned | Session | Offer | Probed | Dropped
)


class RuleFrame(msgspec.Struct, frozen=True, array_like=True):
    """`Rule`, field by field."""

    snapshot: Snapshot
    hold_off_until_mono: float
    local_open_until_mono: float
    retry_allowed: bool
    stale: bool


class RulesFrame(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """`Rules`, and who the container is."""

    worker: str
    host: str
    revision: int
    epoch: int
    clock_offset_ms: int
    rules: tuple[RuleFrame, ...]


class ProbeFrame(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Run a probe; deadline_mono: CLOCK_MONOTONIC seconds."""

    directive: Directive
    deadline_mono: float


ContainerMessage = RulesFrame | ProbeFrame

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(list[JobEvent])
_raw_events = msgspec.msgpack.Decoder(list[msgspec.Raw])
_event = msgspec.msgpack.Decoder(JobEvent)
_message = msgspec.msgpack.Decoder(ContainerMessage)


def frame(body: object) -> bytes:
    """Anything msgspec can encode, with its length in front. Raises `BadFrame` when it is too long."""
    data = _encoder.encode(body)
    if len(data) > MAX_FRAME:
        raise BadFrame(f"frame of {len(data)} bytes; at most {MAX_FRAME} are read")
    return _HEADER.pack(len(data)) + data


def read_events(data: bytes) -> tuple[list[JobEvent], int]:
    """A job's events, and how many of them could not be read: one bad event does not cost the others."""
    try:
        return _events.decode(data), 0
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    good: list[JobEvent] = []
    bad = 0
    try:
        raws = _raw_events.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadFrame("not a list of events") from None
    for raw in raws:
        try:
            good.append(_event.decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            bad += 1
    return good, bad


def read_message(data: bytes) -> ContainerMessage:
    """What the container says."""
    try:
        return _message.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadFrame(type(exc).__name__) from None


def rules_frame(rules: Rules, worker: str, host: str) -> bytes:
    """`Rules` as one frame; made once for all jobs."""
    return frame(
        RulesFrame(
            worker,
            host,
            rules.revision,
            rules.epoch,
            rules.clock_offset_ms,
            tuple(
                RuleFrame(
                    r.snapshot, r.hold_off_until_mono, r.local_open_until_mono, r.retry_allowed, r.stale
                )
                for r in rules.by_target.values()
            ),
        )
    )


def rules_of(message: RulesFrame) -> Rules:
    """And back."""
    by_target = {
        r.snapshot.target: Rule(
            r.snapshot, r.hold_off_until_mono, r.local_open_until_mono, r.retry_allowed, r.stale
        )
        for r in message.rules
    }
    return Rules(message.revision, message.epoch, by_target, message.clock_offset_ms)


class FrameReader:
    """Cuts a byte stream into frames. Raises `BadFrame` when a length says more than may be."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now; the rest waits."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        at = 0
        while len(buffer) - at >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, at)
            if length > MAX_FRAME:
                raise BadFrame(f"frame of {length} bytes; at most {MAX_FRAME} are read")
            end = at + _HEADER.size + length
            if len(buffer) < end:
                break
            frames.append(bytes(buffer[at + _HEADER.size : end]))
            at = end
        if at:
            del buffer[:at]
        return frames
