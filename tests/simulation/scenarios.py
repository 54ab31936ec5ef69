"""What the fleet is put through, and how it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.simulation.fleet import PRIMARY, SECOND, Fleet, Network
from tests.simulation.world import Outage

WARM_S = 120.0
_AFTERMATH_MS = 5_000.0  # a verdict so soon after an outage's end is still about the outage


@dataclass(frozen=True)
class Scenario:
    """One row of the table. outages: mode, length in s, share; of the primary, or of both."""

    name: str
    sessions: int = 40
    workers: int = 4
    mode: str = ""
    outage_s: float = 30.0
    share: float = 1.0
    both: bool = False
    every_ms: float = 0.0
    retry_after_ms: int = 0
    noise: float = 0.0
    network: Network = field(default_factory=Network)
    broken: int = 0  # workers that reach neither provider
    deaf: bool = False  # and do not reach Redis either
    skew_ms: float = 0.0
    after_s: float = 60.0
    seeds: Sequence[int] = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Measured:
    """seconds, requests, verdicts an hour; None where nothing was to be found."""

    detection_s: float | None
    dead: float | None
    false_per_h: float
    recovery_s: float | None
    silent: int


def play(scenario: Scenario, seed: int) -> tuple[Fleet, Measured]:
    """One run."""
    begin = WARM_S * 1000 + 137.0 * seed
    end = begin + scenario.outage_s * 1000
    outages: dict[str, list[Outage]] = {}
    if scenario.mode:
        one = Outage(begin, end, scenario.mode, scenario.share, scenario.retry_after_ms, scenario.every_ms)
        outages = {PRIMARY: [one], **({SECOND: [one]} if scenario.both else {})}
    fleet = Fleet(
        scenario.sessions,
        scenario.workers,
        seed=seed,
        noise=scenario.noise,
        outages=outages,
        network=scenario.network,
    )
    for n, worker in enumerate(fleet.workers.values()):
        worker.link.skew_ms = scenario.skew_ms * (1 if n % 2 else -1)
    fleet.run(begin / 1000)
    for worker in list(fleet.workers.values())[: scenario.broken]:
        worker.broken = set(fleet.providers)
        worker.link.deaf = scenario.deaf
    silent_before = fleet.silent()
    fleet.run(scenario.outage_s + scenario.after_s)
    return fleet, _measure(scenario, fleet, begin, end, fleet.silent() - silent_before)


def _measure(scenario: Scenario, fleet: Fleet, begin: float, end: float, silent: int) -> Measured:
    dead_targets = [] if not scenario.mode else [PRIMARY, SECOND] if scenario.both else [PRIMARY]
    shut = {
        t: fleet.noted.verdicts(t, "unhealthy") + fleet.noted.verdicts(t, "limited") for t in fleet.providers
    }
    false = sum(
        1
        for target, times in shut.items()
        for at in times
        if target not in dead_targets or not begin <= at <= end + _AFTERMATH_MS
    )
    found = [min((at for at in shut[t] if at >= begin), default=None) for t in dead_targets]
    healed = [
        max((at for at in fleet.noted.verdicts(t, "healthy") if at >= end), default=None)
        for t in dead_targets
    ]
    found_s = [(at - begin) / 1000 for at in found if at is not None]
    healed_s = [(at - end) / 1000 for at in healed if at is not None]
    return Measured(
        max(found_s) if found_s else None,
        sum(fleet.providers[t].dead_requests for t in dead_targets) if dead_targets else None,
        false / (fleet.since_ms() / 3_600_000),
        max(healed_s) if healed_s else None,
        silent,
    )


def summed(scenario: Scenario) -> Measured:
    """Medians over the seeds (the worst recovery, the mean of false verdicts)."""
    runs = [play(scenario, seed)[1] for seed in scenario.seeds]
    found = [r.detection_s for r in runs if r.detection_s is not None]
    dead = [r.dead for r in runs if r.dead is not None]
    healed = [r.recovery_s for r in runs if r.recovery_s is not None]
    return Measured(
        median(found) if found else None,
        median(dead) if dead else None,
        sum(r.false_per_h for r in runs) / len(runs),
        max(healed) if healed else None,
        sum(r.silent for r in runs),
    )


_CHAOS = Network(dropped=0.2, doubled=0.2, reordered=0.2, late=0.05)
_BIG = (1,)
_MANY = tuple(range(1, 26))  # where in its 4 s a turn is when the outage begins decides much in small fleets

SCENARIOS: tuple[Scenario, ...] = (
    *(
        Scenario(f"{word}, {n} session{'s' * (n > 1)}", n, w, mode, seeds=_MANY)
        for word, mode in (("hard errors", "status"), ("hang", "hang"))
        for n, w in ((1, 1), (2, 2), (4, 2), (40, 4))
    ),
    Scenario("hard errors, 40 sessions in 40 workers", 40, 40, "status"),
    Scenario("hard errors, 2,000 sessions", 2_000, 100, "status", seeds=_BIG),
    Scenario("hang, 2,000 sessions", 2_000, 100, "hang", seeds=_BIG),
    Scenario("first token after 20 s", mode="slow", seeds=_MANY),
    Scenario("first token after 1.9 s", mode="late", seeds=_MANY),
    Scenario("cut mid-answer", mode="cut", seeds=_MANY),
    Scenario("401", mode="refused"),
    Scenario("429, Retry-After 10", mode="limited", retry_after_ms=10_000),
    Scenario("429 without Retry-After", mode="limited"),
    Scenario("hard errors for 20 s", mode="status", outage_s=20.0),
    Scenario("hard errors for 5 min", mode="status", outage_s=300.0),
    Scenario("half of all requests fail", mode="status", share=0.5, outage_s=120.0),
    Scenario("flapping, 5 s on and off for 2 min", mode="status", every_ms=5_000, outage_s=120.0),
    Scenario("both providers fail together", mode="status", both=True),
    Scenario("both providers hang together", mode="hang", both=True),
    Scenario("5 % noise, 20 min", noise=0.05, after_s=1_050.0, seeds=(1, 2, 3)),
    Scenario("10 % noise, 20 min", noise=0.10, after_s=1_050.0, seeds=(1, 2, 3)),
    Scenario("20 % noise, 20 min", noise=0.20, after_s=1_050.0, seeds=(1, 2, 3)),
    Scenario("40 % noise, 20 min", noise=0.40, after_s=1_050.0, seeds=(1, 2, 3)),
    Scenario("10 % noise, 2,000 sessions, 20 min", 2_000, 100, noise=0.10, after_s=1_050.0, seeds=_BIG),
    Scenario("one broken worker of four, 10 min", broken=1, after_s=600.0),
    Scenario("two broken workers of four, 10 min", broken=2, after_s=600.0),
    Scenario("one broken of two, 2 sessions, 10 min", 2, 2, broken=1, after_s=600.0),
    Scenario("one host's network gone, 10 min", broken=1, deaf=True, after_s=600.0),
    Scenario("one broken worker, then hard errors", mode="status", broken=1),
    Scenario("reports dropped, doubled, reordered, late; hard errors", mode="status", network=_CHAOS),
    Scenario("reports dropped, doubled, reordered, late; 10 min", network=_CHAOS, after_s=600.0),
    Scenario("workers' clocks an hour off, hard errors", mode="status", skew_ms=3_600_000.0),
)


def table(scenarios: Sequence[Scenario] = SCENARIOS) -> list[str]:
    """The Markdown table, row by row."""
    rows = [
        "| scenario (40 sessions, 4 workers unless said) | detected | dead requests | false/h | healthy again |",
        "|---|---|---|---|---|",
    ]
    for scenario in scenarios:
        seen = summed(scenario)
        detection = "" if seen.detection_s is None else f"{seen.detection_s:.1f} s"
        recovery = "" if seen.recovery_s is None else f"{seen.recovery_s:.1f} s"
        dead = "" if seen.dead is None else f"{seen.dead:.0f}"
        rows.append(f"| {scenario.name} | {detection} | {dead} | {seen.false_per_h:.1f} | {recovery} |")
    return rows
