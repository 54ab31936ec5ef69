"""Every message of contract v1 as a frozen struct (docs/contract.md holds the table).

Rules: structs are arrays on the wire, so a field is only ever **appended**, with a default; readers ignore
trailing fields they do not know. `_ms` fields named `*_at_ms` are Redis TIME in milliseconds; all other
`_ms` are durations. Counters are cumulative since the worker's boot, so a lost or doubled report heals.
What comes thousands of times a second is no business of the garbage collector (`gc=False`): it holds plain
values alone, so it is in no cycle.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from supervisor.wire.vocabulary import (
    DirectiveKind,
    FaultKind,
    OverrideState,
    Phase,
    State,
    TokenRole,
    WorkerState,
)

Count = Annotated[int, Meta(ge=0, le=2**53)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Id = Annotated[str, Meta(min_length=1, max_length=128)]
TargetId = Annotated[str, Meta(min_length=5, max_length=200)]
Text = Annotated[str, Meta(max_length=300)]
Fingerprint = Annotated[str, Meta(max_length=64)]

MAX_TARGETS_PER_WORKER = 32
MAX_TARGETS_PER_FLEET = 256


class TargetCounts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One worker's counters about one target.

    started, ok, abandoned, first_outputs and every value of `faults` are cumulative since boot.
    in_flight and overdue are gauges: attempts waiting now, and those waiting longer than `overdue_ms`.
    trailing_faults is the run of health faults at the end of the finished outcomes (0 after a success).
    histogram counts first outputs by `HISTOGRAM_BOUNDS_MS`. tokens, characters, audio_ms are cumulative use.
    retry_after_ms is the newest Retry-After a provider sent with a 429 (0: none), still to run.
    over_budget counts first outputs that took longer than the target's first-output budget.
    given_up counts abandoned attempts that were overdue when they were abandoned: as telling as a timeout.
    """

    target: TargetId
    started: Count = 0
    ok: Count = 0
    faults: dict[FaultKind, Count] = {}
    abandoned: Count = 0
    first_outputs: Count = 0
    in_flight: Count = 0
    overdue: Count = 0
    trailing_faults: Count = 0
    histogram: tuple[Count, ...] = ()
    tokens: Count = 0
    characters: Count = 0
    audio_ms: Count = 0
    key_fp: Fingerprint = ""
    retry_after_ms: Count = 0
    over_budget: Count = 0
    given_up: Count = 0


class Report(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """A worker's counts. `age_ms`: how long ago it was taken when it was sent.

    The targets of one role stand in the user's own order. `draining`: takes no new calls, gets no probes.
    """

    worker: Id
    boot: Id
    seq: Count
    age_ms: Count
    host: Id
    targets: Annotated[tuple[TargetCounts, ...], Meta(max_length=MAX_TARGETS_PER_WORKER)] = ()
    epoch: Count = 0
    revision: Count = 0
    refused: dict[TargetId, Text] = {}
    sessions: Count = 0
    targets_left_out: Count = 0
    draining: bool = False


class ProbeResult(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """How a probe ended. `fault` is None for a good one; `local` faults prove nothing either way."""

    worker: Id
    directive: Id
    target: TargetId
    fault: FaultKind | None = None
    first_output_ms: Count = 0
    total_ms: Count = 0
    status: int = 0
    message: Text = ""
    retry_after_ms: Count = 0


class Goodbye(msgspec.Struct, frozen=True, array_like=True, tag="g"):
    """A worker leaves on purpose: forget its gauges at once."""

    worker: Id
    boot: Id


WorkerMessage = Report | ProbeResult | Goodbye


class FaultEvent(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """One fault in one line a person can read. `message` is redacted before it gets here."""

    at_ms: Count
    worker: Id
    host: Id
    target: TargetId
    session: Annotated[str, Meta(max_length=128)] = ""
    turn: Count = 0
    kind: FaultKind = FaultKind.UNKNOWN
    status: int = 0
    request_id: Annotated[str, Meta(max_length=128)] = ""
    attempt: Count = 1
    phase: Phase = Phase.CONNECT
    action: Annotated[str, Meta(max_length=64)] = ""
    message: Text = ""
    waited_ms: Count = 0


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """What workers must do about one target.

    admit: share of sessions that may use it (sticky by hash of session and target).
    rank: order within the role, 0 first. hold_off_until_at_ms: send nothing before (0: no hold-off).
    new_sessions_only: the share admits only calls that began after the change (a voice stays).
    condemned_keys: fingerprints whose holders must not use the target; empty: everybody.
    panic: admitted only because nothing of the role is left; retry budget is 0.
    retry_ratio: what a success gives back to the retry budget; retry_floor: retries a minute this worker
    may always make. ttl_ms: after that without news, fall back to the built-in defaults.
    """

    target: TargetId
    revision: Count
    epoch: Count
    state: State
    admit: Share = 1.0
    rank: Count = 0
    max_attempts: Annotated[int, Meta(ge=0, le=10)] = 2
    backoff_base_ms: Count = 100
    backoff_cap_ms: Count = 1000
    backoff_jitter: Share = 0.5
    first_output_ms: Count = 2000
    stall_ms: Count = 3000
    overdue_ms: Count = 1600
    hedge_ms: Count = 0
    retry_ratio: Share = 0.1
    retry_floor: Annotated[float, Meta(ge=0.0, le=100_000.0)] = 0.0
    hold_off_until_at_ms: Count = 0
    reason: Text = ""
    ttl_ms: Count = 600_000
    override: OverrideState | None = None
    new_sessions_only: bool = False
    condemned_keys: tuple[Fingerprint, ...] = ()
    panic: bool = False
    since_at_ms: Count = 0


class Wake(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """Published on `wake`: the changed snapshots themselves. `removed` targets are no longer known."""

    epoch: Count
    revision: Count
    snapshots: tuple[Snapshot, ...] = ()
    removed: tuple[TargetId, ...] = ()


class Directive(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """An order to one worker. Probes carry a target; nothing is done after `deadline_at_ms`."""

    id: Id
    kind: DirectiveKind
    epoch: Count
    issued_at_ms: Count
    deadline_at_ms: Count
    target: Annotated[str, Meta(max_length=200)] = ""
    budget_ms: Count = 4000
    reason: Text = ""


class WorkerInfo(msgspec.Struct, frozen=True, array_like=True, tag="W"):
    """What a worker says of itself in `worker:<id>` (TTL 15 s)."""

    worker: Id
    boot: Id
    host: Id
    pid: Count
    started_at_ms: Count
    version: Annotated[str, Meta(max_length=64)] = ""
    agent: Annotated[str, Meta(max_length=200)] = ""
    state: WorkerState = WorkerState.STARTING
    sessions: Count = 0
    targets: tuple[TargetId, ...] = ()
    epoch: Count = 0
    revision: Count = 0
    apply_lag_ms: Count = 0
    refused: dict[TargetId, Text] = {}
    redis_reconnects: Count = 0
    local_open: tuple[TargetId, ...] = ()
    dropped_reports: Count = 0
    dropped_faults: Count = 0


class SessionInfo(msgspec.Struct, frozen=True, array_like=True, tag="S"):
    """One call, live (`session:<id>`) or ended (`sessions:ended`). Holds no words of the caller."""

    session: Id
    worker: Id
    started_at_ms: Count
    ended_at_ms: Count = 0
    turns: Count = 0
    errors: dict[str, dict[FaultKind, Count]] = {}
    failovers: Count = 0
    apologies: Count = 0
    longest_silence_ms: Count = 0
    outcome: Annotated[str, Meta(max_length=64)] = ""
    targets: dict[str, TargetId] = {}


class Event(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """One line of `events`. kind: verdict, strategy, incident, alarm, leader, worker, gap, operator."""

    at_ms: Count
    kind: Annotated[str, Meta(max_length=32)]
    target: Annotated[str, Meta(max_length=200)] = ""
    before: Annotated[str, Meta(max_length=64)] = ""
    after: Annotated[str, Meta(max_length=64)] = ""
    reason: Text = ""
    revision: Count = 0
    epoch: Count = 0
    worker: Annotated[str, Meta(max_length=128)] = ""
    incident: Annotated[str, Meta(max_length=64)] = ""
    evidence: dict[str, float | int | str] = {}


class Command(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """What a REST replica asks of the leader. `args` is checked by the leader again."""

    id: Id
    at_ms: Count
    actor: Id
    op: Annotated[str, Meta(max_length=64)]
    args: dict[str, str | int | float | bool | None] = {}
    expires_at_ms: Count = 0


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="C"):
    """The leader's answer to a command. `status` is an HTTP status; `detail` says what to do."""

    id: Id
    status: Annotated[int, Meta(ge=100, le=599)]
    detail: Text = ""
    revision: Count = 0


class Audit(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """Who changed what, when and why."""

    at_ms: Count
    actor: Id
    op: Annotated[str, Meta(max_length=64)]
    subject: Annotated[str, Meta(max_length=200)] = ""
    detail: Text = ""
    status: int = 200


class OverrideRecord(msgspec.Struct, frozen=True, array_like=True, tag="o"):
    """An operator's verdict over a target or, with `provider:<name>` as scope, a whole provider."""

    scope: Annotated[str, Meta(max_length=200)]
    state: OverrideState
    reason: Text
    actor: Id
    set_at_ms: Count
    expires_at_ms: Count
    version: Count = 1


class PolicyRecord(msgspec.Struct, frozen=True, array_like=True, tag="y"):
    """Rule numbers for one scope (`fleet`, `role:<role>`, `target:<id>`), as the hash `policy` holds them."""

    scope: Annotated[str, Meta(min_length=1, max_length=210)]
    values: Annotated[dict[str, float | int | bool], Meta(max_length=200)]
    actor: Id
    set_at_ms: Count
    version: Count = 1
    reason: Text = ""


class TokenRecord(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """A bearer token: its SHA-256, never the token."""

    id: Id
    sha256: Annotated[str, Meta(min_length=64, max_length=64)]
    role: TokenRole
    note: Text = ""
    created_at_ms: Count = 0
    expires_at_ms: Count = 0


Message = (
    Report | ProbeResult | Goodbye | FaultEvent | Snapshot | Wake | Directive | WorkerInfo | SessionInfo
    | Event | Command | Reply | Audit | OverrideRecord | PolicyRecord | TokenRecord
)  # fmt: skip
