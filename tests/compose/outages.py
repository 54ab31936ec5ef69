"""While calls go on: a provider hangs, the fleet grows, Redis dies and freezes, the supervisor starts anew."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.compose.checks import CALLERS_A_WORKER
from tests.compose.stack import Calls, Stack, now_ms, took
from tests.support.waiting import wait_until_sync

MODEL = "llm:groq:llama-3.3-70b-versatile"
OVERRIDDEN = "tts:groq:canopylabs~1orpheus-v1-english"
OUTAGE_S = 15.0
WORKERS = 2
MORE = 5


def hang(stack: Stack) -> str:
    """A verdict for the whole fleet, callers answered by the other model, and the way back."""
    callers, begun = stack.answered(0), now_ms()
    stack.fault("llm/groq", {"fault": "hang"})
    took(lambda: stack.target(MODEL).get("state") in ("unhealthy", "probing"), "the verdict", 60)
    verdict_ms = now_ms()
    applied = took(lambda: stack.applied_by(WORKERS), "both workers have applied it", 10)
    stack.wait_all_answered(callers, now_ms(), "while the model hangs")
    dead = stack.requests(begun, role="llm", provider="groq", kind="chat", fault="hang")
    verdict = (verdict_ms - dead[0]["at"]) / 1000
    probed = sum(bool(request["probe"]) for request in dead)
    stack.fault("llm/groq", {"fault": "ok"})
    back = took(lambda: stack.target(MODEL).get("state") == "healthy", "healthy again", 90)
    calls = Calls.of(stack.heard(), begun)
    assert calls.complaints == [], f"{calls}: {calls.complaints}"
    return (
        f"verdict {verdict:.1f} s after the first request, applied by all {applied:.1f} s later,"
        f" {len(dead)} requests to the dead model, {probed} of them probes; healthy {back:.0f} s after the end; {calls}"
    )


def five_workers(stack: Stack) -> str:
    """`--scale worker=5` leaves the two alone; all five report and apply, an override too. Then two again."""
    before, begun = set(stack.containers("worker")), now_ms()
    stack.compose("up", "--detach", "--no-build", "--scale", f"worker={MORE}")
    assert before <= set(stack.containers("worker")), "the first two were made anew"
    reported = took(lambda: stack.applied_by(MORE), f"{MORE} workers have applied the strategy", 180)
    wanted = MORE * CALLERS_A_WORKER
    wait_until_sync(lambda: len(stack.answered(begun)) >= wanted, f"{wanted} callers are answered", 240, 1.0)
    # Not judged: ten calls that start at once may well be too much for a small machine.
    calls = Calls.of(stack.heard(), begun)
    answer = stack.api.put(
        f"/v1/targets/{OVERRIDDEN}/override",
        json={"state": "forced_unhealthy", "reason": "compose test", "ttl_s": 3600},
        headers={"Authorization": f"Bearer {stack.token}"},
    )
    assert answer.status_code in (200, 201), answer.text
    revision = answer.json()["revision"]
    applied = took(lambda: stack.applied_by(MORE) >= revision, "all apply the override", 10)
    _override_holds(stack)
    stack.compose("up", "--detach", "--no-build", "--scale", f"worker={WORKERS}")
    fewer = took(lambda: stack.applied_by(WORKERS), "the workers that went are forgotten", 60)
    return (
        f"{MORE} workers after {reported:.0f} s, {wanted} callers answered ({calls}, {len(calls.complaints)}"
        f" complaints); override applied by all after {applied:.1f} s; back to {WORKERS} in {fewer:.0f} s"
    )


def _override_holds(stack: Stack) -> None:
    shown = stack.target(OVERRIDDEN)
    assert shown["override"] == "forced_unhealthy", shown
    assert shown["admit"] == 0, shown


def _outage(stack: Stack, begin: Callable[[], object], end: Callable[[], object]) -> str:
    """Callers are answered while it lasts; afterwards everything is as before, and no verdict came of it."""
    callers, begun = stack.answered(0), now_ms()
    before = stack.get("/v1/strategies")["revision"]
    begin()
    ends_mono = time.monotonic() + OUTAGE_S
    try:
        stack.wait_all_answered(callers, now_ms(), "meanwhile")
        wait_until_sync(lambda: time.monotonic() >= ends_mono, "the outage has lasted", OUTAGE_S + 1, 0.2)
    finally:
        end()
    back = took(lambda: stack.applied_by(WORKERS) >= before, "all workers have applied the strategy", 60)
    _override_holds(stack)
    condemned = [
        t["id"] for t in stack.get("/v1/targets")["items"] if t["state"] not in ("healthy", "degraded")
    ]
    assert condemned == [], condemned
    stack.wait_all_answered(callers, now_ms(), "afterwards")
    calls = Calls.of(stack.heard(), begun)
    assert calls.complaints == [], f"{calls}: {calls.complaints}"
    return f"all as before {back:.1f} s after its end, override in force, no verdict; {calls}"


def redis_killed(stack: Stack) -> str:
    """`kill -9`, away for a while, started again."""
    return _outage(stack, lambda: stack.compose("kill", "redis"), lambda: stack.compose("start", "redis"))


def redis_frozen(stack: Stack) -> str:
    """Connections stay open and nothing answers."""
    return _outage(stack, lambda: stack.compose("pause", "redis"), lambda: stack.compose("unpause", "redis"))


def supervisor_restarted(stack: Stack) -> str:
    """The token, the override and the rising revision outlive it, and no second token is printed."""
    found = _outage(
        stack, lambda: stack.compose("stop", "supervisor"), lambda: stack.compose("start", "supervisor")
    )
    assert stack.compose("logs", "--no-color", "supervisor").count("lks_") == 1
    return found
