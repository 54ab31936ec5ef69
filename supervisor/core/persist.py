"""The state as bytes, for a new leader: verdicts, deadlines, overrides, policies, keys, windows, quantiles.

Rule: the first byte is the layout's version; fields are only appended, with defaults. Counters of workers are
not kept: the first report a new leader reads of a boot is a baseline, so nothing is counted twice.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from supervisor.core.policy import Number, PolicyBook, PolicyError
from supervisor.core.state import EngineState, KeyEvidence, TargetRec, Verdict
from supervisor.core.windows import Counts, Window
from supervisor.wire.messages import OverrideRecord
from supervisor.wire.targets import TargetError, parse_target

VERSION: Final = 1


class StateError(ValueError):
    """The bytes are no engine state this build reads; begin with an empty one and say so."""


class SavedTarget(msgspec.Struct, array_like=True):
    id: str
    verdict: Verdict
    order: int
    totals: Counts
    ring10: tuple[int, list[Counts]]
    ring60: tuple[int, list[Counts]]
    hist_new: list[int]
    hist_old: list[int]
    learnt: tuple[int, int, int, int, int, int]
    probe_log: list[int]
    clean: Counts
    suspect_next_at_ms: int
    refuted: int
    held_at_ms: int = 0


class SavedState(msgspec.Struct, array_like=True):
    epoch: int
    revision: int
    now_ms: int
    targets: list[SavedTarget]
    overrides: list[OverrideRecord]
    policies: dict[str, dict[str, Number]]
    keys: list[KeyEvidence]
    settling_until_at_ms: int = 0
    last_probe_n: int = 0
    counters: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SavedState)


def dump(state: EngineState) -> bytes:
    """Version byte, then MessagePack; about half a kilobyte a target."""
    saved = SavedState(
        epoch=state.epoch,
        revision=state.revision,
        now_ms=state.now_ms,
        targets=[_save(target) for target in state.targets.values()],
        overrides=list(state.overrides.values()),
        policies=state.book.scopes,
        keys=list(state.keys.values()),
        settling_until_at_ms=state.settling_until_at_ms,
        last_probe_n=state.last_probe_n,
        counters=state.counters,
    )
    return bytes([VERSION]) + _encoder.encode(saved)


def load(data: bytes) -> EngineState:
    """Read it back; not leading until `TookOver`. Raises `StateError` whatever else the bytes are."""
    if not data or data[0] != VERSION:
        raise StateError("engine state of another version; starting without it")
    try:
        saved = _decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise StateError("engine state cannot be read; starting without it") from None
    state = EngineState(saved.now_ms)
    state.epoch, state.revision = saved.epoch, saved.revision
    state.settling_until_at_ms, state.last_probe_n = saved.settling_until_at_ms, saved.last_probe_n
    state.counters = saved.counters
    state.overrides = {record.scope: record for record in saved.overrides}
    state.keys = {(record.scope, record.fp): record for record in saved.keys}
    state.book = PolicyBook()
    for scope, values in saved.policies.items():
        try:
            state.book.put(scope, values)
        except PolicyError:
            state.count("policies_refused")
    for item in saved.targets:
        try:
            state.targets[item.id] = _restore(item, state)
        except TargetError:
            state.count("targets_unreadable")
    return state


def _save(target: TargetRec) -> SavedTarget:
    return SavedTarget(
        id=target.id,
        verdict=target.v,
        order=target.order,
        totals=target.totals.now(),
        ring10=(target.w10.slot, list(target.w10.ring)),
        ring60=(target.w60.slot, list(target.w60.ring)),
        hist_new=target.hist_new,
        hist_old=target.hist_old,
        learnt=(
            target.learnt_at_ms,
            target.p50_ms,
            target.p95_ms,
            target.first_output_ms,
            target.overdue_ms,
            target.hedge_ms,
        ),
        probe_log=list(target.probe_log),
        clean=target.clean,
        suspect_next_at_ms=target.suspect_next_ms,
        refuted=target.refuted,
        held_at_ms=target.held_at_ms,
    )


def _restore(item: SavedTarget, state: EngineState) -> TargetRec:
    role = parse_target(item.id).role
    target = TargetRec(item.id, state.book.of(item.id, role), state.now_ms)
    target.v = item.verdict
    target.born_at_ms = state.now_ms - 60_000  # its windows are whole
    target.order = item.order
    totals = target.totals
    totals.started, totals.ok, totals.faults, totals.first, totals.slow = item.totals
    _refill(target.w10, *item.ring10)
    _refill(target.w60, *item.ring60)
    if len(item.hist_new) == len(target.hist_new) and len(item.hist_old) == len(target.hist_old):
        target.hist_new, target.hist_old = item.hist_new, item.hist_old
    (
        target.learnt_at_ms,
        target.p50_ms,
        target.p95_ms,
        target.first_output_ms,
        target.overdue_ms,
        target.hedge_ms,
    ) = item.learnt
    target.probe_log = deque(item.probe_log)
    target.clean = item.clean
    target.suspect_next_ms = item.suspect_next_at_ms
    target.refuted = item.refuted
    target.held_at_ms = item.held_at_ms
    return target


def _refill(window: Window, slot: int, ring: list[Counts]) -> None:
    if len(ring) == window.slots:
        window.slot = slot
        window.ring = deque(ring, maxlen=window.slots)
