"""The compose file's containers under a project name of their own, and what callers, supervisor and stand-ins say."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from supervisor.demo.drill_stats import quantile
from tests.support.waiting import wait_until_sync

ROOT = Path(__file__).resolve().parents[2]
FILES = ("docker-compose.yml", "tests/compose/rehearsal.yml")
# What a shell may hold and would turn the stand-ins into paid providers.
_PRIVATE = (
    "GROQ_",
    "CARTESIA_",
    "OPENAI_",
    "DEEPGRAM_",
    "LIVEKIT_",
    "SUPERVISOR_",
    "WORKER_",
    "COMPOSE_",
    "CALLERS",
)


def now_ms() -> int:
    """Wall time in ms, as callers and stand-ins write it."""
    return time.time_ns() // 1_000_000


def run(
    command: Sequence[str], env: dict[str, str], *, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """One command from the repository's root; its exit code is the caller's to judge."""
    return subprocess.run(
        list(command), cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def clean_environment() -> dict[str, str]:
    """Ours without keys, settings and compose's own variables."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_PRIVATE)}


def no_docker() -> str:
    """Why there is nothing to test with; empty when there is."""
    env = clean_environment()
    try:
        engine = run(["docker", "version", "--format", "{{.Server.Version}}"], env, timeout_s=20)
        plugin = run(["docker", "compose", "version", "--short"], env, timeout_s=20)
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if engine.returncode:
        return "no Docker engine answers"
    found = re.match(r"v?(\d+)\.(\d+)", plugin.stdout)
    if plugin.returncode or found is None or (int(found[1]), int(found[2])) < (2, 24):
        return "docker compose 2.24 or newer is needed"
    return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@dataclass
class Stack:
    """One project, on free ports; `remove()` ends it."""

    project: str = field(default_factory=lambda: f"livekit-supervisor-test-{secrets.token_hex(3)}")
    env: dict[str, str] = field(default_factory=clean_environment)
    token: str = ""

    def __post_init__(self) -> None:
        supervisor, simulator = _free_port(), _free_port()
        self.env |= {
            "SUPERVISOR_PUBLISHED_PORT": str(supervisor),
            "SIMULATOR_PUBLISHED_PORT": str(simulator),
            "BUILDKIT_PROGRESS": "plain",
        }
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{supervisor}", timeout=5)
        self.stand_ins = httpx.Client(base_url=f"http://127.0.0.1:{simulator}", timeout=5)

    def remove(self) -> None:
        """`down -v`: containers, networks and volumes, whatever happened."""
        self.api.close()
        self.stand_ins.close()
        self.try_compose("--profile", "rooms", "down", "--volumes", "--timeout", "10")

    # ------------------------------------------------------------ docker

    def compose(self, *args: str, timeout_s: float = 180, env: dict[str, str] | None = None) -> str:
        """`docker compose …` of this project, without the user's .env; its stdout. AssertionError when it fails."""
        done = self.try_compose(*args, timeout_s=timeout_s, env=env)
        assert done.returncode == 0, f"docker compose {' '.join(args)}: {done.stderr[-2000:]}"
        return done.stdout

    def try_compose(
        self, *args: str, timeout_s: float = 180, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same; may fail."""
        files = [part for name in FILES for part in ("-f", name)]
        command = ["docker", "compose", "--env-file", os.devnull, "-p", self.project, *files, *args]
        return run(command, self.env | (env or {}), timeout_s=timeout_s)

    def docker(self, *args: str) -> str:
        """`docker …`; its stdout."""
        done = run(["docker", *args], self.env)
        assert done.returncode == 0, f"docker {' '.join(args)}: {done.stderr[-2000:]}"
        return done.stdout

    def containers(self, *services: str) -> list[str]:
        """Ids of the containers that exist, running or not."""
        return self.compose("ps", "--all", "--quiet", *services).split()

    def inspect(self, *services: str) -> list[dict[str, Any]]:
        """What the engine knows about each container."""
        ids = self.containers(*services)
        return json.loads(self.docker("inspect", *ids)) if ids else []

    def left(self) -> list[str]:
        """Containers, volumes and networks of this project that still exist."""
        mine = f"label=com.docker.compose.project={self.project}"
        return [
            f"{kind} {name}"
            for kind, command in (
                ("container", ("ps", "--all")),
                ("volume", ("volume", "ls")),
                ("network", ("network", "ls")),
            )
            for name in self.docker(*command, "--quiet", "--filter", mine).split()
        ]

    # ------------------------------------------------------------ supervisor and stand-ins

    def get(self, path: str) -> Any:
        """The supervisor's answer as JSON; None while it has none (its Redis may be away on purpose)."""
        try:
            answer = self.api.get(path, headers={"Authorization": f"Bearer {self.token}"})
        except httpx.HTTPError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def target(self, target: str) -> dict[str, Any]:
        """One target as REST shows it; {} while there is no answer."""
        return self.get(f"/v1/targets/{target}") or {}

    def applied_by(self, workers: int) -> int:
        """The revision that all of exactly so many workers have applied; 0 while they have not."""
        shown = self.get("/v1/strategies")
        if not shown or not shown["applied_by_all"] or len(shown["items"]) != workers:
            return 0
        behind = [item for item in shown["items"] if item["behind"] or item["refused"] or not item["applied"]]
        return 0 if behind else shown["revision"]

    def fault(self, path: str, body: dict[str, Any]) -> None:
        """Break or mend a stand-in."""
        self.stand_ins.put(f"/faults/{path}", json=body).raise_for_status()

    def requests(self, since_ms: int, **query: str) -> list[dict[str, Any]]:
        """What reached the stand-ins since then."""
        answer = self.stand_ins.get("/requests", params={"since": str(since_ms), **query})
        answer.raise_for_status()
        return answer.json()["items"]

    # ------------------------------------------------------------ callers

    def heard(self) -> list[dict[str, Any]]:
        """Every event that the callers of all running workers have written."""
        events: list[dict[str, Any]] = []
        for worker in self.containers("worker"):
            done = run(["docker", "exec", worker, "cat", "/tmp/callers.jsonl"], self.env)
            whole, _, _ = done.stdout.rpartition("\n")
            events += [json.loads(line) for line in whole.splitlines()]
        return events

    def answered(self, since_ms: int) -> set[str]:
        """Callers who have heard an answer to something they said since then."""
        return {
            event["caller"]
            for event in self.heard()
            if event["event"] == "turn" and event["speech_end_at"] >= since_ms and not complaint(event)
        }

    def wait_all_answered(self, callers: set[str], since_ms: int, what: str) -> None:
        """Until each of them has had an answer to something said since then."""
        wait_until_sync(lambda: callers <= self.answered(since_ms), f"all callers answered {what}", 90, 1.0)


def complaint(turn: dict[str, Any]) -> str:
    """What a caller would say of this turn; empty when it was answered."""
    if turn["silent"]:
        return f"{turn['caller']} heard nothing"
    if turn["lost"] >= turn["expected"]:
        return f"{turn['caller']} heard no word of the answer"
    return ""


@dataclass(frozen=True)
class Calls:
    """What callers lived through in some time."""

    turns: int
    complaints: list[str]
    wait_p50_s: float
    wait_max_s: float
    words_lost: int
    """Of answers that were heard: a machine that is too busy loses some."""

    @classmethod
    def of(cls, events: list[dict[str, Any]], since_ms: int) -> Calls:
        turns = [e for e in events if e["event"] == "turn" and e["speech_end_at"] >= since_ms]
        waits = [float(t["dead_air_s"]) for t in turns if t["dead_air_s"] is not None]
        closed = [f"{e['caller']} was cut off" for e in events if e["event"] == "closed" and e["error"]]
        said = [text for turn in turns if (text := complaint(turn))]
        lost = sum(turn["lost"] for turn in turns if not complaint(turn))
        return cls(len(turns), closed + said, quantile(waits, 0.5) or 0.0, max(waits, default=0.0), lost)

    def __str__(self) -> str:
        return (
            f"{self.turns} turns, wait p50 {self.wait_p50_s:.1f} s, longest {self.wait_max_s:.1f} s,"
            f" {self.words_lost} words lost"
        )


Waited = Callable[[], object]


def took(done: Waited, what: str, timeout_s: float) -> float:
    """Seconds until `done()` is truthy; WaitTimeout after `timeout_s`."""
    begun = time.monotonic()
    wait_until_sync(done, what, timeout_s, 0.2)
    return time.monotonic() - begun
