"""Fleets on virtual time: what docs/engine.md promises, on fast scenarios (`make sim` plays all of them)."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from tests.simulation.__main__ import main
from tests.simulation.fleet import Network
from tests.simulation.scenarios import Scenario, play, summed

SEEDS = (11, 12, 13)


@pytest.mark.parametrize(
    ("scenario", "detection_s", "dead", "recovery_s"),
    [
        (Scenario("hard errors", mode="status", seeds=SEEDS), 0.9, 15, 25.0),
        (Scenario("hang", mode="hang", seeds=SEEDS), 1.8, 22, 25.0),
        (Scenario("slow", mode="slow", seeds=SEEDS), 1.8, 22, 25.0),
        (Scenario("cut", mode="cut", seeds=SEEDS), 2.0, 25, 25.0),
        (Scenario("401", mode="refused", seeds=SEEDS), 1.0, 8, 25.0),
        (Scenario("429", mode="limited", retry_after_ms=10_000, seeds=SEEDS), 1.0, 8, 25.0),
        (Scenario("4 sessions", 4, 2, "status", seeds=SEEDS), 3.0, 12, 25.0),
        # two turns have to fail: 4.2 s to 8.4 s, by where in its 4 s the outage begins
        (Scenario("1 session", 1, 1, "status", seeds=SEEDS), 8.6, 10, 25.0),
        (Scenario("5 minutes", mode="status", outage_s=300.0, seeds=SEEDS[:1]), 0.9, 70, 25.0),
        (
            Scenario("bad network", mode="status", network=Network(0.2, 0.2, 0.2, 0.05), seeds=SEEDS),
            1.5,
            20,
            25.0,
        ),
        (Scenario("clocks off", mode="status", skew_ms=3_600_000.0, seeds=SEEDS[:1]), 0.9, 15, 25.0),
        (Scenario("both", mode="status", both=True, seeds=SEEDS), 3.0, 500, 25.0),
    ],
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Scenario) else "",
)
def test_outages_are_found_and_left(
    scenario: Scenario, detection_s: float, dead: int, recovery_s: float
) -> None:
    seen = summed(scenario)
    assert seen.detection_s is not None
    assert seen.detection_s <= detection_s
    assert seen.dead is not None
    assert seen.dead <= dead
    assert seen.recovery_s is not None
    assert seen.recovery_s <= recovery_s
    assert seen.false_per_h == 0.0


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("one broken of four", broken=1, after_s=200.0),
        Scenario("two broken of four", broken=2, after_s=200.0),
        Scenario("one broken of two", 2, 2, broken=1, after_s=400.0),
        Scenario("one host gone", broken=1, deaf=True, after_s=200.0),
        Scenario("5 % noise", noise=0.05, after_s=400.0),
        Scenario("10 % noise, few sessions", 4, 2, noise=0.1, after_s=900.0),
        Scenario("a bad network", network=Network(0.2, 0.2, 0.2, 0.05), after_s=200.0),
    ],
    ids=lambda scenario: scenario.name.replace(" ", "-"),
)
def test_nothing_is_condemned_that_works_for_most(scenario: Scenario) -> None:
    _, seen = play(scenario, 21)
    assert seen.false_per_h == 0.0


def test_never_two_probes_at_once() -> None:
    fleet, _ = play(Scenario("hang", mode="hang", outage_s=60.0), 31)
    by_target: dict[str, list[float]] = {}
    for at, order in fleet.noted.probes:
        by_target.setdefault(order.target, []).append(at)
    ended = {e.at_ms: e.target for e in fleet.noted.events if e.kind == "probe"}
    for target, sent in by_target.items():
        ends = sorted(at for at, who in ended.items() if who == target)
        assert len(ends) >= len(sent) - 1
        for earlier, later in pairwise(sent):
            begin = fleet.clock.now - fleet.since_ms()
            assert any(begin + earlier < end <= begin + later + 1 for end in ends)


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = Scenario("hang", mode="hang", after_s=20.0)
    (one, _), (two, _) = play(scenario, 5), play(scenario, 5)
    assert one.noted.events == two.noted.events
    assert one.noted.probes == two.noted.probes


def test_only_some_scenarios_can_be_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--only", "HANG", "--only", "401", "--list"])
    main()
    listed = capsys.readouterr().out.splitlines()
    assert "hang, 40 sessions" in listed
    assert "401" in listed
    assert all("hang" in name or "401" in name for name in listed)
    monkeypatch.setattr(sys, "argv", ["simulation", "--only", "hang", "--write"])
    with pytest.raises(SystemExit):
        main()
