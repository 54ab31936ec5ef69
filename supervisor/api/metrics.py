"""Every metric of the supervisor, named here and nowhere else.

Rule: label sets are bounded. Targets are at most 256 a fleet; workers and sessions are never labels.
What is about the fleet comes from the leader's picture, so every replica says the same; what is about this
process carries `replica` metrics' own names (`…_process_…` or runtime counters) and differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import redis.exceptions
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor import __version__
from supervisor.runtime.context import ReplicaRole, RuntimeCounters, Status
from supervisor.wire.messages import MAX_TARGETS_PER_FLEET
from supervisor.wire.view import FleetView, TargetView
from supervisor.wire.vocabulary import OverrideState, Role, State

if TYPE_CHECKING:
    from supervisor.api.records import Records
    from supervisor.runtime.context import SupervisorContext

P = "livekit_supervisor_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_ENGINE_COUNTERS = 64
READ_S = 2.0
_TARGET = ("role", "provider", "model")


@dataclass(slots=True)
class Reading:
    """What one scrape found."""

    status: Status
    counters: RuntimeCounters
    redis_up: bool = False
    now_ms: int = 0
    view: FleetView | None = None
    dead: int = 0
    apply_lags_ms: list[int] = field(default_factory=list[int])
    checks: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(P + name, text, value=value)


def _process(reading: Reading) -> Iterator[Metric]:
    status, counters = reading.status, reading.counters
    yield InfoMetricFamily(P + "build", "Version of this supervisor.", value={"version": __version__})
    yield _gauge("leader", "1 when this process leads the fleet.", float(status.is_leader))
    roles = GaugeMetricFamily(P + "role", "What this process is: 1 for its role.", labels=["role"])
    for role in ReplicaRole:
        roles.add_metric([role.value], float(status.role is role))
    yield roles
    yield _gauge("epoch", "Epoch of the leader as this process knows it.", status.epoch)
    yield _gauge("revision", "Revision of the strategy as this process knows it.", status.revision)
    yield _gauge("redis_up", "1 when Redis answered this scrape.", float(reading.redis_up))
    yield _gauge("loop_age_seconds", "Since this process's loop last came round.", status.last_loop_age_s)
    yield _gauge("stream_clients", "Open event streams of this process.", counters.sse_clients)
    yield _gauge("state_bytes", "Size of the engine's state as last written.", counters.state_bytes)
    yield _gauge("view_bytes", "Size of the view as last written.", counters.view_bytes)
    yield _gauge(
        "publish_last_seconds", "How long the newest publication took.", counters.publish_last_ms / 1000
    )


# (attribute of RuntimeCounters, text); the metric is livekit_supervisor_<attribute>_total.
_PLAIN = (
    ("entries_read", "Stream entries read."),
    ("reports_folded", "Reports given to the engine."),
    ("step_errors", "Inputs at which the engine failed (none should)."),
    ("publishes", "Strategies published."),
    ("takeovers", "Times this process became leader."),
    ("leases_lost", "Times this process lost the lease."),
    ("refills", "Times an emptied Redis was refilled."),
    ("redis_errors", "Calls to Redis that failed."),
    ("worker_id_clashes", "Reports of a second worker with the same id."),
    ("recording_dropped", "Inputs that the recording left out."),
    ("state_dir_errors", "Writes to SUPERVISOR_STATE_DIR that failed."),
    ("sse_dropped", "Event streams ended because their client was too slow."),
)
# The same with one label: attribute, label, text.
_LABELLED = (
    ("unreadable", "reason", "Entries that could not be read."),
    ("inputs", "kind", "Inputs of the engine."),
    ("effects", "kind", "Effects of the engine."),
    ("effects_failed", "kind", "Effects that could not be carried out."),
    ("commands", "op", "Operators' commands."),
    ("commands_refused", "op", "Operators' commands that were refused."),
    ("gaps", "reason", "Gaps seen in the reports."),
    ("outbox_dropped", "stream", "Entries for streams given up while Redis was away for long."),
)


def _counters(counters: RuntimeCounters) -> Iterator[Metric]:
    for name, text in _PLAIN:
        yield CounterMetricFamily(P + name, text, value=float(getattr(counters, name)))
    for name, label, text in _LABELLED:
        family = CounterMetricFamily(P + name, text, labels=[label])
        for value, count in sorted(getattr(counters, name).items()):
            family.add_metric([str(value)], float(count))
        yield family


def _fleet(reading: Reading, view: FleetView) -> Iterator[Metric]:
    yield _gauge(
        "view_age_seconds", "Age of the leader's picture.", max(0, reading.now_ms - view.at_ms) / 1000
    )
    yield _gauge("fleet_epoch", "Epoch of the leader's picture.", view.epoch)
    yield _gauge("fleet_revision", "Revision of the leader's picture.", view.revision)
    yield _gauge("workers", "Worker containers that report.", len(view.workers))
    flagged = sum(1 for worker in view.workers if worker.flagged)
    yield _gauge("workers_flagged", "Workers held to be broken themselves.", flagged)
    behind = sum(1 for worker in view.workers if worker.revision < view.revision)
    yield _gauge("workers_behind", "Workers that have not applied the newest revision.", behind)
    refused = sum(len(worker.refused) for worker in view.workers)
    yield _gauge("snapshots_refused", "Snapshots that workers refuse now.", refused)
    yield _gauge("sessions", "Calls of the fleet.", sum(worker.sessions for worker in view.workers))
    yield _gauge(
        "settling",
        "1 after a gap, while nobody new is condemned.",
        float(view.settling_until_at_ms > view.at_ms),
    )
    panic = GaugeMetricFamily(
        P + "panic", "1 when nothing of a role is left but what is condemned.", labels=["role"]
    )
    for role in Role:
        panic.add_metric([role.value], float(role in view.panic_roles))
    yield panic
    engine = CounterMetricFamily(
        P + "engine", "The engine's own counts since the leader began.", labels=["counter"]
    )
    for name, count in sorted(view.counters.items())[:MAX_ENGINE_COUNTERS]:
        engine.add_metric([name], float(count))
    yield engine


_TARGET_GAUGES: tuple[tuple[str, str, Callable[[TargetView], float]], ...] = (
    ("admit_ratio", "Share of sessions that may use it.", lambda t: t.admit),
    ("rank", "Order within its role; 0 first.", lambda t: t.rank),
    ("attempts_10s", "Attempts of the last 10 s.", lambda t: t.attempts),
    ("faults_10s", "Faults of the last 10 s.", lambda t: t.faults),
    ("fault_ratio", "Share of faults in the last 10 s.", lambda t: t.fault_rate),
    ("attempts_60s", "Attempts of the last 60 s.", lambda t: t.attempts_60s),
    ("fault_ratio_60s", "Share of faults in the last 60 s.", lambda t: t.fault_rate_60s),
    ("in_flight", "Attempts waiting now.", lambda t: t.in_flight),
    ("overdue", "Attempts waiting longer than they should.", lambda t: t.overdue),
    ("workers", "Workers that use it.", lambda t: t.workers),
    ("sessions", "Calls that have it among their targets.", lambda t: t.sessions),
    ("probes_in_flight", "Probes under way.", lambda t: t.probes_in_flight),
    ("panic", "1 when admitted only because nothing else is left.", lambda t: float(t.panic)),
    ("condemned_keys", "Keys that may not be used with it.", lambda t: len(t.condemned_keys)),
)  # fmt: skip


def _labels(target: TargetView) -> list[str]:
    return [target.role.value, target.provider, target.model]


def _targets(view: FleetView) -> Iterator[Metric]:
    targets = view.targets[:MAX_TARGETS_PER_FLEET]
    states = GaugeMetricFamily(
        P + "target_state", "The verdict: 1 for the state.", labels=[*_TARGET, "state"]
    )
    overrides = GaugeMetricFamily(
        P + "target_override", "1 for an operator's verdict in force.", labels=[*_TARGET, "override"]
    )
    kinds = GaugeMetricFamily(P + "target_faults_60s", "Faults of the last 60 s.", labels=[*_TARGET, "kind"])
    first = GaugeMetricFamily(
        P + "target_first_output_seconds", "Time to first output.", labels=[*_TARGET, "quantile"]
    )
    hold = GaugeMetricFamily(P + "target_hold_off_seconds", "Nothing is sent for so long.", labels=_TARGET)
    for target in targets:
        labels = _labels(target)
        for state in State:
            states.add_metric([*labels, state.value], float(target.state is state))
        for override in OverrideState:
            overrides.add_metric([*labels, override.value], float(target.override is override))
        for kind, count in target.faults_by_kind_60s.items():
            kinds.add_metric([*labels, kind.value], count)
        first.add_metric([*labels, "0.5"], target.first_output_p50_ms / 1000)
        first.add_metric([*labels, "0.95"], target.first_output_p95_ms / 1000)
        hold.add_metric(labels, max(0, target.hold_off_until_at_ms - view.at_ms) / 1000)
    yield from (states, overrides, kinds, first, hold)
    for name, text, value_of in _TARGET_GAUGES:
        family = GaugeMetricFamily(P + "target_" + name, text, labels=_TARGET)
        for target in targets:
            family.add_metric(_labels(target), float(value_of(target)))
        yield family


def _others(reading: Reading) -> Iterator[Metric]:
    yield _gauge("dead_entries", "Unreadable entries that are kept.", reading.dead)
    lags = sorted(reading.apply_lags_ms)
    family = GaugeMetricFamily(
        P + "apply_lag_seconds", "From the leader to workers, over workers.", labels=["quantile"]
    )
    for quantile in (0.5, 0.95, 1.0):
        if lags:
            family.add_metric([str(quantile)], lags[min(len(lags) - 1, int(quantile * len(lags)))] / 1000)
    yield family
    checks = GaugeMetricFamily(
        P + "check_ok", "1 when the newest spend-free check was good.", labels=["provider", "source"]
    )
    for (provider, source), ok in sorted(reading.checks.items()):
        checks.add_metric([provider, source], float(ok))
    yield checks


class _Once(Collector):
    """Turns one reading into families."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        reading = self._reading
        yield from _process(reading)
        yield from _counters(reading.counters)
        if reading.view is not None:
            yield from _fleet(reading, reading.view)
            yield from _targets(reading.view)
        if reading.redis_up:
            yield from _others(reading)


class Metrics:
    """Renders `/metrics`. A Redis that does not answer leaves the fleet's metrics out and says `redis_up 0`."""

    def __init__(self, context: SupervisorContext, records: Records) -> None:
        self._context = context
        self._records = records
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)

    async def _read(self, reading: Reading) -> None:
        reading.now_ms = await self._records.now_ms()
        reading.view = await self._records.view()
        reading.dead = await self._records.dead_entries()
        reading.apply_lags_ms = [info.apply_lag_ms for info in (await self._records.workers()).values()]
        found = await self._records.checks()
        reading.checks = {(check.provider, check.source): check.ok for check in found if check.ok is not None}
        reading.redis_up = True

    async def render(self) -> tuple[bytes, str]:
        """The exposition text and its media type."""
        reading = Reading(self._context.status(), self._context.counters)
        try:
            async with asyncio.timeout(READ_S):
                await self._read(reading)
        except (redis.exceptions.RedisError, OSError, TimeoutError):
            reading.redis_up = False
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(reading))
        return generate_latest(registry) + generate_latest(self._process), CONTENT_TYPE
