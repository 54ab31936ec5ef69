"""`supervisor demo`: the whole circuit on loopback, with callers, and a table of what goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from supervisor.demo.caller_log import CallerLog
from supervisor.demo.processes import StartFailed
from supervisor.demo.rig import Rig, rig
from supervisor.demo.view import Picture

POLL_S = 0.5
START_TIMEOUT_S = 150.0
_VERDICTS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What to start. for_s: end after that many seconds of calls (None: when told to)."""

    workers: int = 2
    callers: int = 8
    port: int = 8080
    simulator_port: int = 9100
    for_s: float | None = None


Show = Callable[[Picture], None]
Say = Callable[[str], None]


async def run_demo(plan: DemoPlan, stop: asyncio.Event, show: Show, say: Say) -> dict[str, Any]:
    """Start everything, show it until `stop` or `for_s`, end everything; what happened. Raises `StartFailed`."""
    begun = time.monotonic()
    say("starting Redis, provider stand-ins and the supervisor")
    async with rig(port=plan.port, simulator_port=plan.simulator_port) as set_:
        log = CallerLog(set_.folder / "callers.jsonl")
        await _start_workers(plan, set_, say)
        watcher = _Watcher(set_, log)
        await _until(
            lambda: watcher.poll_ready(plan), stop, START_TIMEOUT_S, set_, "callers are being answered"
        )
        watcher.picture.ready_s = time.monotonic() - begun
        say(f"ready after {watcher.picture.ready_s:.0f} s; dashboard {set_.supervisor_url}")
        end = None if plan.for_s is None else time.monotonic() + plan.for_s
        while not stop.is_set() and (end is None or time.monotonic() < end):
            await watcher.poll()
            if (dead := set_.processes.dead()) is not None:
                raise StartFailed(f"{dead.name} ended by itself:\n{dead.tail()}")
            show(watcher.picture)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await stop.wait()
        await watcher.poll()
        result = watcher.result()
    say("everything has ended")
    return result


async def _start_workers(plan: DemoPlan, set_: Rig, say: Say) -> None:
    say(
        f"starting {plan.workers} workers and {plan.callers} callers (a job process each; a few seconds apiece)"
    )
    for n in range(plan.workers):
        share = plan.callers // plan.workers + (n < plan.callers % plan.workers)
        name = f"worker-{n + 1}"
        env = set_.worker_environment(name) | {
            "WORKER_CALLERS_RECORD": str(set_.folder / "callers.jsonl"),
        }
        await set_.processes.start(name, ["worker", "start", "--local-callers", str(share)], env)


async def _until(
    done: Callable[[], Any], stop: asyncio.Event, timeout_s: float, set_: Rig, what: str
) -> None:
    end = time.monotonic() + timeout_s
    while not stop.is_set() and not await done():
        if (dead := set_.processes.dead()) is not None:
            raise StartFailed(f"{dead.name} ended by itself:\n{dead.tail()}")
        if time.monotonic() > end:
            raise StartFailed(
                f"after {timeout_s:.0f} s still waiting until {what}; logs were in {set_.folder}"
            )
        await asyncio.sleep(POLL_S)


class _Watcher:
    """Fetches what the table shows; a supervisor that does not answer for a moment leaves the last picture."""

    def __init__(self, set_: Rig, log: CallerLog) -> None:
        self._set, self._log = set_, log
        self._verdicts: deque[str] = deque(maxlen=_VERDICTS_KEPT)
        self._states: dict[str, str] = {}
        self._begun = time.monotonic()
        self.picture = Picture(supervisor_url=set_.supervisor_url, simulator_url=set_.simulator_url)

    async def poll_ready(self, plan: DemoPlan) -> bool:
        await self.poll()
        answered = {t["caller"] for t in self._log.turns if not t["silent"]}
        return len(answered) >= plan.callers and len(self.picture.workers) >= plan.workers

    async def poll(self) -> None:
        picture = self.picture
        try:
            picture.targets = (await self._set.get("/v1/targets"))["items"]
            picture.workers = (await self._set.get("/v1/workers"))["items"]
            picture.note = ""
        except httpx.HTTPError as exc:
            picture.note = f"the supervisor does not answer ({type(exc).__name__})"
        for item in picture.targets:
            now, before = str(item["state"]), self._states.get(item["id"])
            if before is not None and before != now:
                self._verdicts.append(
                    f"{time.strftime('%H:%M:%S')} {item['id']}: {before} → {now}. {item['reason']}"
                )
            self._states[item["id"]] = now
        self._log.read()
        summary = self._log.summary()
        picture.callers = dict(self._log.doing)
        picture.turns, picture.silent = summary["turns"], summary["silent"]
        picture.dead_air_p50_s, picture.dead_air_max_s = (
            summary["dead_air_s"]["p50"],
            summary["dead_air_s"]["max"],
        )
        picture.verdicts = list(self._verdicts)

    def result(self) -> dict[str, Any]:
        """What `--json` prints."""
        picture = self.picture
        ready = picture.ready_s
        return {
            "ready_s": None if ready is None else round(ready, 1),
            "callers": self._log.summary(),
            "targets": list(picture.targets),
            "workers": list(picture.workers),
            "verdicts": list(self._verdicts),
        }
