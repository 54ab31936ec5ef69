"""The whole circuit as real processes for acceptance tests: stand-ins, supervisor, and workers with text sessions.

Redis belongs to the test, which may kill, freeze and empty it. Everything else ends with the block.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from supervisor.demo.processes import Child, Processes
from supervisor.demo.rig import Rig, rig
from tests.support.waiting import wait_until

PRIMARY = ("llm", "groq", "llama-3.3-70b-versatile")
PRIMARY_ID = ":".join(PRIMARY)
SECOND_ID = "llm:openai:gpt-4o-mini"
# Importing livekit takes seconds of CPU in each worker process; machines that run tests are busy.
START_TIMEOUT_S = 120.0
# A session whose turn hangs says nothing at all: this long without a finished turn is a silent caller.
QUIET_S = 8.0


def now_ms() -> int:
    """Wall time in ms, as the stand-ins and the turns write it."""
    return time.time_ns() // 1_000_000


@dataclass
class FleetRig:
    """A running set with text sessions as load. `set_` is what the demo stands on too."""

    set_: Rig
    record: Path
    sessions: dict[str, int] = field(default_factory=dict[str, int])  # by worker
    children: list[Child] = field(default_factory=list[Child])

    async def add_worker(
        self, name: str, sessions: int, every_s: float, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a worker process that holds guarded text sessions, each asking every `every_s` seconds."""
        argv = ["worker.drill.text", "--variant", "guarded", "--worker", name, "--record", str(self.record)]
        argv += ["--simulator", self.set_.simulator_url, "--sessions", str(sessions), "--every", str(every_s)]
        settings = self.set_.worker_environment(name) | dict(env or {})
        self.children.append(await self.set_.processes.start(f"worker-{name}", argv, settings))
        self.sessions[name] = sessions

    async def all_talk(self, turns: int = 3) -> None:
        """Wait until every session of every worker has had that many answers."""
        wanted = sum(self.sessions.values())

        def talking() -> bool:
            self._alive()
            had: dict[str, int] = {}
            for turn in self.turns():
                had[turn["session"]] = had.get(turn["session"], 0) + (turn["first_s"] is not None)
            return sum(n >= turns for n in had.values()) >= wanted

        await wait_until(talking, f"{wanted} sessions get answers", START_TIMEOUT_S, every_s=0.2)

    def _alive(self) -> None:
        for child in self.children:
            assert child.process.returncode is None, f"{child.name} ended by itself:\n{child.tail(30)}"

    def turns(self, since_ms: int = 0, to_ms: int | None = None) -> list[dict[str, Any]]:
        """Turns that began in that time, in the order in which they ended."""
        if not self.record.exists():
            return []
        whole, _, _ = self.record.read_text().rpartition("\n")
        found = [json.loads(line) for line in whole.splitlines()]
        return [t for t in found if t["at_ms"] >= since_ms and (to_ms is None or t["at_ms"] < to_ms)]

    def complaints(self, since_ms: int, longest_s: float) -> list[str]:
        """What callers would complain of since then: silence, half answers, apologies, waits above `longest_s`."""
        found: list[str] = []
        now = now_ms()
        last: dict[str, int] = {}
        for turn in self.turns():
            name = turn["session"]
            last[name] = max(last.get(name, 0), turn["at_ms"] + int(turn["total_s"] * 1000))
            if turn["at_ms"] < since_ms:
                continue
            said = f"{name} turn {turn['turn']}"
            if turn["first_s"] is None:
                found.append(f"{said} was silent for {turn['total_s']:.1f} s")
            elif turn["first_s"] > longest_s:
                found.append(f"{said} waited {turn['first_s']:.1f} s")
            if turn["closed"]:
                found.append(f"{said} ended the session")
            elif turn["got"] < turn["expected"] or turn["apologised"]:
                found.append(f"{said} got {turn['got']} of {turn['expected']} words")
        found += [
            f"{name} has had no answer for {(now - at) / 1000:.1f} s"
            for name, at in last.items()
            if now - at > QUIET_S * 1000
        ]
        if len(last) < sum(self.sessions.values()):
            found.append(f"only {len(last)} sessions were ever answered")
        return found

    async def target(self, target: str = PRIMARY_ID) -> dict[str, Any]:
        """A target as REST shows it; {} while the supervisor has no answer."""
        for item in await self.items("/v1/targets"):
            if item["id"] == target:
                return item
        return {}

    async def items(self, path: str) -> list[dict[str, Any]]:
        """The items of a list; none while the supervisor has no answer (Redis may be away on purpose)."""
        try:
            return (await self.set_.get(path))["items"]
        except httpx.HTTPError:
            return []

    async def state_is(
        self, *states: str, target: str = PRIMARY_ID, within_s: float = 30.0
    ) -> dict[str, Any]:
        """Wait until REST shows the target in one of these states."""

        async def shown() -> dict[str, Any]:
            item = await self.target(target)
            return item if item.get("state") in states else {}

        try:
            return await wait_until(shown, f"{target} is {' or '.join(states)}", within_s, every_s=0.05)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{await self.target(target)}\n{await self.events()}") from None

    async def events(self, since_ms: int = 0) -> list[dict[str, Any]]:
        """Verdicts in the incidents' own words, for messages of failed tests."""
        return await self.items("/v1/incidents")

    async def all_obey(self, revision: int, within_s: float = 15.0) -> None:
        """Wait until every worker reports that revision or a later one."""

        async def obey() -> bool:
            workers = await self.items("/v1/workers")
            return len(workers) >= len(self.sessions) and all(w["revision"] >= revision for w in workers)

        await wait_until(obey, f"all workers obey revision {revision}", within_s, every_s=0.1)

    async def requests(self, target: str = PRIMARY_ID, **query: Any) -> list[dict[str, Any]]:
        """What the stand-ins were asked for a target."""
        role, provider, model = target.split(":", 2)
        answer = await self.set_.stand_ins.get(
            "/requests", params={"role": role, "provider": provider, "model": model, **query}
        )
        return answer.json()["items"]

    def logs(self) -> str:
        """The end of what every process printed, for messages of failed tests."""
        files = sorted(self.set_.folder.glob("*.log"))
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    def traces(self) -> list[str]:
        """Which processes printed a traceback: never a thing for an operator to read."""
        files = sorted(self.set_.folder.glob("*.log"))
        return [f.name for f in files if "Traceback" in f.read_text(errors="replace")]

    @property
    def processes(self) -> Processes:
        return self.set_.processes


@asynccontextmanager
async def fleet_rig(
    redis_url: str, workers: Sequence[str] = (), *, sessions: int = 4, every_s: float = 1.0,
    env_of: Callable[[str], Mapping[str, str]] | None = None,
) -> AsyncGenerator[FleetRig]:  # fmt: skip
    """Start a set on that Redis, with these workers; ready when every session has been answered."""
    async with rig(redis_url=redis_url) as set_:
        running = FleetRig(set_, set_.folder / "turns.jsonl")
        for name in workers:
            await running.add_worker(name, sessions, every_s, env_of(name) if env_of else None)
        if workers:
            await running.all_talk()
        yield running
        assert running.traces() == [], running.logs()


def leftovers(mark: str, folder: Path) -> list[tuple[int, str]]:
    """Processes whose environment holds `mark` or who work in `folder`, as (pid, command line). Linux only.

    Both, because Valkey writes its title over its environment. Zombies have neither.
    """
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            ours = mark.encode() in (entry / "environ").read_bytes()
            if ours or (entry / "cwd").readlink().is_relative_to(folder):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append((int(entry.name), line))
        except OSError:  # it has just ended, or belongs to somebody else
            continue
    return found
