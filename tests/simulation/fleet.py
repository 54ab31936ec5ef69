"""Workers, network and the real engine put together; what happened is noted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from supervisor.core import engine
from supervisor.core.effects import Effect, Publish, SendProbe
from supervisor.core.inputs import GapSeen, Input, ProbeEnded, Reported, Tick, TookOver
from supervisor.wire.codec import encode
from supervisor.wire.messages import Event, ProbeResult, Report, Wake
from tests.simulation.link import PUSH_MS
from tests.simulation.worker import Worker
from tests.simulation.world import BEGIN_MS, Clock, Outage, Provider

PRIMARY = "llm:one:model"
SECOND = "llm:two:model"


@dataclass(frozen=True)
class Network:
    """What happens to reports between link and leader (shares of all; delays in ms)."""

    dropped: float = 0.0
    doubled: float = 0.0
    reordered: float = 0.0
    late: float = 0.0


@dataclass
class Noted:
    """Verdicts, probes and alarms in order."""

    events: list[Event] = field(default_factory=list[Event])
    probes: list[tuple[float, SendProbe]] = field(default_factory=list[tuple[float, SendProbe]])
    publications: int = 0

    def verdicts(self, target: str, after: str) -> list[float]:
        """When (ms since the run's begin) a target got a verdict."""
        return [
            e.at_ms - BEGIN_MS
            for e in self.events
            if e.kind == "verdict" and e.target == target and e.after == after
        ]


class Fleet:
    """`sessions` over `workers` containers, with two targets."""

    def __init__(
        self,
        sessions: int,
        workers: int,
        *,
        seed: int = 1,
        noise: float = 0.0,
        outages: dict[str, list[Outage]] | None = None,
        network: Network | None = None,
        targets: Sequence[str] = (PRIMARY, SECOND),
    ) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.network = network or Network()
        self.noted = Noted()
        self.providers = {
            target: Provider(
                target, random.Random(f"{seed}-{target}"), noise, list((outages or {}).get(target, []))
            )
            for target in targets
        }
        self.workers = {
            name: Worker(
                name,
                self.clock,
                self.providers,
                _part(sessions, workers, i),
                random.Random(f"{seed}-{name}"),
                self._send,
            )
            for i, name in enumerate(f"w{i:03d}" for i in range(workers))
        }
        self.state = engine.new_state(int(self.clock.now))
        self.feed(TookOver(1, 0))
        self.clock.after(100.0, self._tick)

    def run(self, seconds: float) -> Noted:
        """Go on for so long."""
        self.clock.run_until(self.clock.now + seconds * 1000)
        return self.noted

    def since_ms(self) -> float:
        return self.clock.now - BEGIN_MS

    def silent(self) -> int:
        """Turns that found no target that answered."""
        return sum(worker.silent for worker in self.workers.values())

    def feed(self, item: Input) -> None:
        self.state, effects = engine.step(self.state, item, int(self.clock.now))
        for effect in effects:
            self._carry_out(effect)

    def gap(self) -> None:
        self.feed(GapSeen("simulated"))

    def _tick(self) -> None:
        self.clock.after(100.0, self._tick)
        self.feed(Tick())

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Publish):
            self.noted.publications += 1
            wake = encode(Wake(self.state.epoch, effect.revision, effect.snapshots, effect.removed))
            for worker in self.workers.values():
                self.clock.after(PUSH_MS, worker.link.take, wake)
        elif isinstance(effect, SendProbe):
            self.noted.probes.append((self.since_ms(), effect))
            self.clock.after(PUSH_MS, self.workers[effect.worker].link.direct, effect)
        else:
            self.noted.events.append(effect.event)

    def _send(self, message: Report | ProbeResult) -> None:
        if isinstance(message, ProbeResult):
            self.clock.after(PUSH_MS, self.feed, ProbeEnded(message))
            return
        net, rng = self.network, self.rng
        if net.dropped and rng.random() < net.dropped:
            return
        wait = PUSH_MS
        if net.reordered and rng.random() < net.reordered:
            wait += rng.random() * 400.0
        if net.late and rng.random() < net.late:
            wait += 2_500.0
        self.clock.after(wait, self.feed, Reported(message, int(wait)))
        if net.doubled and rng.random() < net.doubled:
            self.clock.after(wait + rng.random() * 500.0, self.feed, Reported(message, int(wait)))


def _part(sessions: int, workers: int, i: int) -> int:
    return sessions // workers + (i < sessions % workers)
