"""The leader's whole picture, as `view` holds it: what REST, pages, CLI and metrics show.

Rule: a replica that is not the leader shows this and computes nothing of its own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from supervisor.wire.vocabulary import FaultKind, OverrideState, Role, State


class TargetView(msgspec.Struct, frozen=True, array_like=True):
    """One target now. attempts, faults, fault_rate: last 10 s over the fleet; *_60s: last 60 s."""

    id: str
    role: Role
    provider: str
    model: str
    state: State
    override: OverrideState | None
    since_at_ms: int
    reason: str
    revision: int
    admit: float
    rank: int
    attempts: int
    faults: int
    fault_rate: float
    attempts_60s: int
    faults_60s: int
    fault_rate_60s: float
    faults_by_kind_60s: dict[FaultKind, int]
    workers: int
    sessions: int
    in_flight: int
    overdue: int
    first_output_p50_ms: int
    first_output_p95_ms: int
    hold_off_until_at_ms: int = 0
    next_probe_at_ms: int = 0
    probes_in_flight: int = 0
    incident: str = ""
    panic: bool = False
    evidence: dict[str, float | int | str] = {}
    condemned_keys: tuple[str, ...] = ()


class WorkerView(msgspec.Struct, frozen=True, array_like=True):
    """What the engine knows of one worker. flagged: why it is held to be the broken one ("" if it is not)."""

    worker: str
    host: str
    sessions: int
    revision: int
    refused: dict[str, str]
    last_report_at_ms: int
    flagged: str = ""
    bad_on: tuple[str, ...] = ()
    targets_left_out: int = 0


class FleetView(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """Everything, at one moment of Redis time."""

    at_ms: int
    leader: str
    epoch: int
    revision: int
    targets: tuple[TargetView, ...] = ()
    workers: tuple[WorkerView, ...] = ()
    panic_roles: tuple[Role, ...] = ()
    settling_until_at_ms: int = 0
    counters: dict[str, int] = {}


_VERSION: Final = b"\x01"
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FleetView)


def encode_view(view: FleetView) -> bytes:
    """As the key `view` holds it: version byte, then MessagePack. Larger than a message may be."""
    return _VERSION + _encoder.encode(view)


def decode_view(raw: bytes | None) -> FleetView | None:
    """The picture; None when there is none, or none that this build can read."""
    if not raw or raw[:1] != _VERSION:
        return None
    try:
        return _decoder.decode(memoryview(raw)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
