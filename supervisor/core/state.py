"""What the engine remembers: plain objects, changed in place by `engine.step` alone.

Rule: `Verdict` and what else `persist` names outlive the leader; all else is evidence, and is found again
from the next reports.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

import msgspec

from supervisor.core.policy import Policy, PolicyBook
from supervisor.core.windows import Counts, Totals, Window
from supervisor.wire.messages import OverrideRecord, Report, Snapshot, TargetCounts
from supervisor.wire.targets import parse_target
from supervisor.wire.vocabulary import HISTOGRAM_BOUNDS_MS, HISTOGRAM_BUCKETS, FaultKind, Role, State

Evidence = dict[str, float | int | str]

LIVE_MS = 3_000  # a worker silent for longer is inactive: its gauges are forgotten
GONE_MS = 15_000  # and then the worker itself
LATE_MS = 2_000  # an older report goes to history only


class Verdict(msgspec.Struct):
    """What is held of a target, and what follows next. All `_at_ms` are Redis TIME; 0 means never.

    level: k of the re-admission rule (docs/engine.md), 1 at first. hold_level: hold-offs in a row without Retry-After.
    goods: good probes in a row. by_key: condemned for its credentials. probes_sent only rises.
    ramp_at_ms, ramp_step: when the present step began, and which (0 first).
    """

    state: State = State.HEALTHY
    since_at_ms: int = 0
    reason: str = ""
    rule: str = ""
    evidence: Evidence = {}
    incident: str = ""
    incident_at_ms: int = 0
    condemned_at_ms: int = 0
    level: int = 1
    level_at_ms: int = 0
    hold_level: int = 0
    hold_until_at_ms: int = 0
    ramp_step: int = 0
    ramp_at_ms: int = 0
    goods: int = 0
    next_probe_at_ms: int = 0
    probes_sent: int = 0
    clear_since_at_ms: int = 0
    by_key: bool = False


class Probe:
    """A probe under way. purpose: `verdict`, `suspicion`, `key` or `operator`."""

    __slots__ = ("budget_ms", "deadline_at_ms", "fp", "id", "purpose", "sent_at_ms", "worker")

    def __init__(
        self,
        id_: str,
        worker: str,
        fp: str,
        purpose: str,
        sent_at_ms: int,
        budget_ms: int,
        deadline_at_ms: int,
    ) -> None:
        self.id = id_
        self.worker = worker
        self.fp = fp
        self.purpose = purpose
        self.sent_at_ms = sent_at_ms
        self.budget_ms = budget_ms
        self.deadline_at_ms = deadline_at_ms


class Suspicion:
    """Probes sent because of a short run, or of a refused key.

    failed: workers whose probe failed, in order. fp, refused: the key in doubt and who was refused (else None, "").
    """

    __slots__ = ("failed", "fp", "next_at_ms", "refused", "started_at_ms", "tries")

    def __init__(self, started_at_ms: int, fp: str | None = None, refused: str = "") -> None:
        self.fp = fp
        self.refused = refused
        self.started_at_ms = started_at_ms
        self.next_at_ms = started_at_ms
        self.failed: list[str] = []
        self.tries = 0


class WorkerTarget:
    """One worker's part in one target. Counters are the last report's; run, ok_sum, fault_sum are ours."""

    __slots__ = (
        "abandoned", "active_at_ms", "base", "base_seq", "contrib", "fault_sum", "faults", "first",
        "flagged", "flagged_at_ms", "fp", "given_up", "hist", "hist_done", "hold_count", "in_flight",
        "limited_at_ms", "ok", "ok_at_ms", "ok_sum", "order", "over_budget", "overdue", "own_base",
        "retry_after_ms", "ring", "run", "run_at_ms", "run_before", "run_first", "run_started", "slow",
        "started", "target", "worker",
    )  # fmt: skip

    def __init__(self, worker: WorkerRec, target: TargetRec) -> None:
        self.worker = worker
        self.target = target
        self.order = 0
        self.fp = ""
        self.zero()
        self.active_at_ms = 0
        self.ok_at_ms = 0
        self.ok_sum = 0
        self.fault_sum = 0
        self.ring: deque[tuple[int, int]] = deque([(0, 0)] * 12, maxlen=12)  # sums at each 5 s boundary
        self.run = 0
        self.run_first = 0
        self.run_started = 0
        self.run_before = 0
        self.run_at_ms = 0
        self.limited_at_ms = 0
        self.retry_after_ms = 0
        self.hold_count = 0
        self.flagged = ""
        self.flagged_at_ms = 0

    def zero(self) -> None:
        """A new boot: its counters begin at nothing."""
        self.started = 0
        self.ok = 0
        self.abandoned = 0
        self.first = 0
        self.over_budget = 0
        self.given_up = 0
        self.faults: dict[FaultKind, int] = {}
        self.hist: tuple[int, ...] = ()
        self.hist_done: tuple[int, ...] = ()
        self.slow = 0
        self.in_flight = 0
        self.overdue = 0
        self.base = 0
        self.base_seq = -1
        self.contrib = 0
        self.own_base = 0

    def take(self, counts: TargetCounts) -> None:
        """Make these counters the ones to count from."""
        self.started = counts.started
        self.ok = counts.ok
        self.abandoned = counts.abandoned
        self.first = counts.first_outputs
        self.over_budget = counts.over_budget
        self.given_up = counts.given_up
        self.faults = counts.faults
        self.hist = self.hist_done = counts.histogram
        self.slow = sum(counts.histogram[self.target.slow_bucket :])

    def recent(self, slots: int) -> tuple[int, int]:
        """(ok, faults) of about the last `slots` x 5 s."""
        ok, faults = self.ring[-slots]
        return self.ok_sum - ok, self.fault_sum - faults


class WorkerRec:
    """One worker container."""

    __slots__ = (
        "boot", "counted", "draining", "epoch", "host", "id", "last_at_ms", "old_boots", "refused",
        "revision", "seq", "sessions", "targets", "targets_left_out",
    )  # fmt: skip

    def __init__(self, id_: str, report: Report) -> None:
        self.id = id_
        self.host = report.host
        self.boot = report.boot
        self.seq = -1
        self.counted = False  # whether a baseline or a first report of this boot is in
        self.last_at_ms = 0
        self.sessions = 0
        self.revision = 0
        self.epoch = 0
        self.refused: dict[str, str] = {}
        self.draining = False
        self.targets_left_out = 0
        self.targets: dict[str, WorkerTarget] = {}
        self.old_boots: deque[str] = deque(maxlen=8)

    def live(self, now_ms: int) -> bool:
        return now_ms - self.last_at_ms <= LIVE_MS


def slow_bucket(policy: Policy) -> int:
    """The first histogram bucket that lies wholly at or above the first-output budget."""
    return bisect_left(HISTOGRAM_BOUNDS_MS, policy.slow_ms) + 1


class TargetRec:
    """One target: verdict, evidence, and what workers were told last."""

    __slots__ = (
        "born_at_ms", "clean", "first_output_ms", "first_seq", "hedge_ms", "held_at_ms", "hist_new",
        "hist_old", "id", "in_flight", "kinds", "last_prober", "late_run", "learnt_at_ms",
        "model", "order", "overdue", "overdue_from_ms", "overdue_ms", "overdue_run", "p50_ms", "p95_ms",
        "policy", "probe", "probe_log", "provider", "published", "published_at_ms", "ramp_faulty", "refuted",
        "refuted_at_ms", "role", "run", "run_at_ms", "run_before", "run_first", "run_from_ms", "run_started",
        "slow_bits", "slow_bucket", "suspect_next_ms", "suspicion", "totals", "v", "w10", "w60", "watched", "workers",
    )  # fmt: skip

    def __init__(self, id_: str, policy: Policy, now_ms: int) -> None:
        parsed = parse_target(id_)
        self.id = id_
        self.role: Role = parsed.role
        self.provider = parsed.provider
        self.model = parsed.model
        self.policy = policy
        self.v = Verdict(since_at_ms=now_ms, level_at_ms=now_ms)
        self.order = 0
        self.born_at_ms = now_ms
        self.workers: dict[str, WorkerTarget] = {}
        self.held_at_ms = now_ms
        # evidence
        self.totals = Totals()
        self.w10 = Window(20, 500, now_ms)
        self.w60 = Window(12, 5_000, now_ms)
        self.kinds: deque[dict[FaultKind, int]] = deque([{}], maxlen=12)
        self.run = 0
        self.run_first = 0  # first outputs seen since the run began
        self.run_started = 0  # attempts begun before it
        self.run_before = 0  # attempts under way when it began, less what completed since
        self.run_at_ms = 0
        self.run_from_ms = 0
        self.in_flight = 0
        self.overdue = 0
        self.overdue_run = 0  # attempts that became overdue since the last first output
        self.overdue_from_ms = 0  # when the first of them did
        self.late_run = 0  # attempts given up or timed out since then that were waiting for theirs
        self.first_seq = 0
        self.slow_bits = 0  # the last ten first outputs, newest lowest: 1 is one over the budget
        self.slow_bucket = slow_bucket(policy)
        # first output, learnt
        self.hist_new = [0] * HISTOGRAM_BUCKETS
        self.hist_old = [0] * HISTOGRAM_BUCKETS
        self.learnt_at_ms = now_ms
        self.p50_ms = 0
        self.p95_ms = 0
        self.first_output_ms = 0
        self.overdue_ms = 0
        self.hedge_ms = 0
        # what is under way
        self.probe: Probe | None = None
        self.last_prober = ""
        self.probe_log: deque[int] = deque()
        self.suspicion: Suspicion | None = None
        self.suspect_next_ms = 0
        self.refuted = 0
        self.refuted_at_ms = 0
        self.clean = Counts()  # totals when the newest ramp began: what was before it is no evidence any more
        self.ramp_faulty: set[str] = set()
        self.watched = False  # first outputs matter at once: a key is in doubt, or calls come in panic
        self.published: Snapshot | None = None
        self.published_at_ms = 0

    @property
    def fleet_run(self) -> int:
        """Faults and overdue attempts in a row, over the fleet, no completion between."""
        return self.run + self.overdue_run

    @property
    def waited_run(self) -> int:
        """Of these, attempts that waited in vain: no first output came anywhere in the fleet between them."""
        return self.overdue_run + min(self.run, self.late_run)


class KeyEvidence(msgspec.Struct):
    """Refusals of one key within one scope (a provider, or one target), and whether it is condemned.

    workers: id → [refusals, newest `at_ms`] of those refused since something last worked for them.
    """

    scope: str
    fp: str
    kind: str
    workers: dict[str, list[int]] = {}
    condemned_at_ms: int = 0
    goods: int = 0
    next_probe_at_ms: int = 0
    seen_at_ms: int = 0


class Check(msgspec.Struct):
    """The newest spend-free hint about a provider from one source."""

    ok: bool
    source: str
    detail: str
    at_ms: int


class EngineState:
    """All of it. `leading` is False until `TookOver`: reports are folded, nothing is decided."""

    __slots__ = (
        "book", "checks", "counters", "epoch", "expiry_due_ms", "keys", "last_probe_n", "leading",
        "learn_due_ms", "long_slot", "now_ms", "overrides", "refresh", "revision", "roll_due_ms",
        "sessions", "settling_until_at_ms", "targets", "told_panic", "untold_gaps", "workers",
    )  # fmt: skip

    def __init__(self, now_ms: int = 0) -> None:
        self.epoch = 0
        self.revision = 0
        self.leading = False
        self.now_ms = now_ms
        self.targets: dict[str, TargetRec] = {}
        self.workers: dict[str, WorkerRec] = {}
        self.overrides: dict[str, OverrideRecord] = {}
        self.book = PolicyBook()
        self.keys: dict[tuple[str, str], KeyEvidence] = {}
        self.checks: dict[str, dict[str, Check]] = {}
        self.counters: dict[str, int] = {}
        self.settling_until_at_ms = 0
        self.sessions = 0
        self.told_panic: set[Role] = set()
        self.untold_gaps: list[str] = []  # seen before `TookOver`
        self.refresh = False
        self.last_probe_n = 0
        self.roll_due_ms = 0
        self.long_slot = now_ms // 5_000
        self.expiry_due_ms = 0
        self.learn_due_ms = 0

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + n
