"""A process in which several guards offer probes: the one that holds the target runs it."""

from __future__ import annotations

import time

import pytest

from supervisor.wire.messages import Directive, ProbeResult
from supervisor.wire.vocabulary import DirectiveKind, FaultKind, Role
from tests.support.waiting import wait_until
from worker.link.api import ProbeHandler
from worker.link.probe_runner import ProbeRunner

A, B = "llm:groq:a", "llm:groq:b"


def holder(target: str, asked: list[str], *, fault: FaultKind | None = None) -> ProbeHandler:
    """What a guard with this one target offers."""

    async def handle(directive: Directive) -> ProbeResult:
        asked.append(target)
        mine = directive.target == target
        return ProbeResult("w", directive.id, directive.target, fault=fault if mine else FaultKind.LOCAL)

    return handle


async def probed(runner: ProbeRunner, results: list[ProbeResult], target: str) -> ProbeResult:
    runner.start(Directive("d", DirectiveKind.PROBE, 1, 1, 2, target, budget_ms=2_000), time.monotonic() + 5)
    await wait_until(lambda: results, "a result")
    return results.pop()


async def test_the_guard_that_holds_the_target_is_found() -> None:
    results: list[ProbeResult] = []
    asked: list[str] = []
    runner = ProbeRunner(results.append)
    runner.offer(Role.LLM, holder(A, asked))  # the session's own model
    leave = runner.offer(Role.LLM, holder(B, asked))  # its agent's
    assert (await probed(runner, results, A)).fault is None
    assert (await probed(runner, results, B)).fault is None
    assert asked == [B, A, B], "the newest first, and nobody after the one that knew"
    leave()
    assert (await probed(runner, results, B)).fault is FaultKind.LOCAL


@pytest.mark.parametrize("fault", [FaultKind.SERVER, FaultKind.AUTHENTICATION])
async def test_a_fault_of_the_service_is_the_result(fault: FaultKind) -> None:
    results: list[ProbeResult] = []
    asked: list[str] = []
    runner = ProbeRunner(results.append)
    runner.offer(Role.LLM, holder(A, asked))
    runner.offer(Role.LLM, holder(A, asked, fault=fault))
    assert (await probed(runner, results, A)).fault is fault
    assert asked == [A], "nobody pays twice"


async def test_without_anybody_it_ends_as_local_and_says_why() -> None:
    results: list[ProbeResult] = []
    result = await probed(ProbeRunner(results.append), results, A)
    assert (result.fault, result.message) == (
        FaultKind.LOCAL,
        "nobody here runs probes for this role any more",
    )
