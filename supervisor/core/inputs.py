"""What can happen to the engine. `step(state, input, now_ms)` takes one of these; all can be recorded."""

from __future__ import annotations

import msgspec

from supervisor.wire.messages import OverrideRecord, ProbeResult, Report


class Reported(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """A worker's report was read. `late_ms` is how long ago it was taken (queue in the worker and in Redis)."""

    report: Report
    late_ms: int = 0


class WorkerLeft(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """A worker said goodbye, or its record ran out."""

    worker: str
    boot: str = ""


class ProbeEnded(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """A probe's result came back."""

    result: ProbeResult


class CheckEnded(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """A spend-free check or a status page said something about a provider: a hint."""

    provider: str
    ok: bool
    source: str
    detail: str = ""


class OverrideSet(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """An operator's verdict over a target or `provider:<name>`."""

    record: OverrideRecord


class OverrideCleared(msgspec.Struct, frozen=True, array_like=True, tag="O"):
    """An operator took a verdict back."""

    scope: str
    actor: str


class PolicySet(msgspec.Struct, frozen=True, array_like=True, tag="y"):
    """Rule numbers for a scope (`fleet`, `role:<role>`, `target:<id>`) were replaced; empty: back to defaults."""

    scope: str
    values: dict[str, float | int | bool]


class ProbeAsked(msgspec.Struct, frozen=True, array_like=True, tag="P"):
    """An operator wants a probe of a target now."""

    target: str
    actor: str


class GapSeen(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """Reports may be missing (trimmed, emptied, failed over): condemn nobody new for a while."""

    reason: str


class TookOver(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """This leader began with `epoch`, after catching up: publish once, with revisions above `revision`."""

    epoch: int
    revision: int


class Tick(msgspec.Struct, frozen=True, array_like=True, tag="k"):
    """Time went on (at least every 100 ms)."""


Input = (
    Reported | WorkerLeft | ProbeEnded | CheckEnded | OverrideSet | OverrideCleared | PolicySet | ProbeAsked
    | GapSeen | TookOver | Tick
)  # fmt: skip
