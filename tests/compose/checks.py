"""Before anything breaks: images, settings, health, hardening, reports."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.compose.stack import Calls, Stack, now_ms, run, took
from tests.support.waiting import wait_until_sync

BUILT = ("supervisor", "worker", "simulator")
SERVICES = ("redis", "simulator", "supervisor", "worker")
CALLERS_A_WORKER = 2
_PACKAGES = "import importlib.metadata as m; print(*sorted({d.name.lower() for d in m.distributions()}))"
_MIB = 1024 * 1024


def build(stack: Stack) -> str:
    """Build every image of the compose file."""
    stack.compose("--profile", "rooms", "build", timeout_s=1800)
    return "all images"


def images(stack: Stack) -> str:
    """No livekit in the supervisor's image, no pip in any, nobody runs as root."""
    found: list[str] = []
    for name in BUILT:
        image = f"livekit-supervisor/{name}"
        packages = stack.docker("run", "--rm", "--entrypoint", "python", image, "-c", _PACKAGES).split()
        assert "livekit-supervisor" in packages
        assert "pip" not in packages
        livekit = [package for package in packages if re.match("livekit(?!-supervisor)", package)]
        assert bool(livekit) == (name != "supervisor"), f"{name}: {livekit}"
        shown = json.loads(stack.docker("image", "inspect", image))[0]
        assert shown["Config"]["User"] == "app"
        assert not [entry for entry in shown["Config"]["Env"] if re.search(r"KEY|TOKEN|SECRET", entry)]
        found.append(f"{name} {shown['Size'] / _MIB:.0f} MiB, {len(packages)} packages")
    return "; ".join(found)


def _one_shot(stack: Stack, service: str, *args: str, env: dict[str, str]) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a container that ends by itself."""
    given = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
    done = stack.try_compose("run", "--rm", "--no-deps", "-T", *given, service, *args)
    return done.returncode, [line for line in done.stderr.splitlines() if not _of_compose(line)]


def _of_compose(line: str) -> bool:
    return bool(re.match(r"\s*(Network|Volume|Container) ", line)) or not line.strip()


def wrong_settings(stack: Stack) -> str:
    """Exit code 2 and one line that names the variable."""
    cases = (
        ("supervisor", "SUPERVISOR_ADMIN_TOKEN", "s3cr3t"),
        ("supervisor", "REDIS_URL", "s3cr3t"),
        ("worker", "WORKER_LATENCY_BUDGET_MS", "soon"),
        ("worker", "WORKER_SIMULATER_URL", "http://simulator:9100"),
    )
    for service, variable, value in cases:
        code, lines = _one_shot(stack, service, env={variable: value})
        assert code == 2, f"{variable}: exit code {code}, {lines}"
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"{service}: {variable}"), lines
        assert value not in lines[0].split(": ", 2)[2], lines
    return f"{len(cases)} tried, one line each"


def real_keys(stack: Stack) -> str:
    """Both keys: the real providers, and nobody calls. One key: still the stand-ins."""

    def resolved(**env: str) -> dict[str, Any]:
        config = stack.compose("--profile", "rooms", "config", "--format", "json", env=env)
        return json.loads(config)["services"]

    both = resolved(GROQ_API_KEY="groq-key", CARTESIA_API_KEY="cartesia-key")
    for service in ("worker", "supervisor"):
        environment = both[service]["environment"]
        assert environment["GROQ_API_KEY"] == "groq-key"
        assert environment["CARTESIA_API_KEY"] == "cartesia-key"
        assert not [name for name, value in environment.items() if "simulator:9100" in (value or "")]
    assert both["callers"]["environment"]["CALLERS"] == "0"
    one = resolved(GROQ_API_KEY="groq-key")
    assert one["worker"]["environment"]["GROQ_API_KEY"] == "stand-in"
    assert one["worker"]["environment"]["WORKER_SIMULATOR_URL"] == "http://simulator:9100"
    assert one["callers"]["environment"]["CALLERS"] == ""
    code, lines = _one_shot(
        stack, "callers", env={"CALLERS": "0", "GROQ_API_KEY": "groq-key", "CARTESIA_API_KEY": "cartesia-key"}
    )
    assert (code, lines) == (0, []), lines
    return "both: real providers and no callers; one: stand-ins"


def livekit_away(stack: Stack) -> str:
    """Without a LiveKit server a worker keeps trying, says where and why, and stops at once when told to."""
    name = f"{stack.project}-lonely"
    stack.compose("run", "--detach", "--no-deps", "--name", name, "worker", "start")
    try:
        lines = took_lines(stack, name, "retrying")
        assert '"url": "ws://livekit:7880"' in lines
        assert '"error": "ClientConnector' in lines
        assert "Traceback" not in lines
        stack.docker("stop", "--time", "20", name)
        code = stack.docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        assert code == "0", f"stopped with {code}: {lines}"
    finally:
        run(["docker", "rm", "--force", name], stack.env)
    return "retries, named in the log; SIGTERM ends it with 0"


def took_lines(stack: Stack, container: str, text: str) -> str:
    """A container's log, once `text` is in it."""

    def logged() -> str:
        done = run(["docker", "logs", container], stack.env)
        return done.stderr + done.stdout if text in done.stderr + done.stdout else ""

    return wait_until_sync(logged, f"{text!r} in the log of {container}", 90, 1.0)


def up(stack: Stack) -> str:
    """Everything starts, and every health check goes green."""
    stack.compose("up", "--detach", "--no-build")

    def healthy() -> bool:
        states = [item["State"] for item in stack.inspect(*SERVICES)]
        return len(states) == 5 and all(state["Health"]["Status"] == "healthy" for state in states)

    return f"5 containers healthy after {took(healthy, 'all containers are healthy', 120):.0f} s"


def hardened(stack: Stack) -> str:
    """Read-only, without capabilities, not root, in fact and not only in the file."""
    items = stack.inspect(*SERVICES)
    for item in items:
        host, name = item["HostConfig"], item["Name"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        # Process 1 is docker's init; what it started must be nobody special too.
        status = stack.docker("exec", item["Id"], "sh", "-c", "id -u; cat /proc/1/status; touch /x 2>&1 || :")
        assert not status.startswith("0\n"), f"{name} runs as root"
        assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), name
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), name
        assert "Read-only file system" in status, name
    published = [
        binding["HostIp"]
        for item in items
        for bindings in item["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published
    assert set(published) == {"127.0.0.1"}
    redis = stack.inspect("redis")[0]["NetworkSettings"]["Networks"]
    assert [network for network in redis if not network.endswith("_back")] == []
    return f"{len(items)} containers"


def admin_token(stack: Stack) -> str:
    """The first token is in the log, once, and it works; nothing else does."""
    log = stack.compose("logs", "--no-color", "--no-log-prefix", "supervisor")
    tokens = re.findall(r"lks_[\w-]+", log)
    assert len(tokens) == 1, f"{len(tokens)} tokens in the log"
    assert stack.api.get("/v1/targets").status_code == 401
    stack.token = tokens[0]
    assert stack.get("/v1/targets") is not None
    return "printed once; without it 401"


def two_workers(stack: Stack) -> str:
    """Both report, and both have applied the newest strategy."""
    waited = took(lambda: stack.applied_by(2), "two workers have applied the strategy", 60)
    return f"revision {stack.applied_by(2)} after {waited:.0f} s"


def callers(stack: Stack) -> str:
    """Every caller of both workers is answered, twice and more."""
    wanted = 2 * CALLERS_A_WORKER
    wait_until_sync(lambda: len(stack.answered(0)) >= wanted, f"{wanted} callers are answered", 120, 1.0)
    stack.wait_all_answered(stack.answered(0), now_ms(), "once more")
    calls = Calls.of(stack.heard(), 0)
    assert calls.complaints == [], f"{calls}: {calls.complaints}"
    return f"{wanted} callers, {calls}"
