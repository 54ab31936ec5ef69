"""The examples against the stand-ins: each answers, and is not silent when its services fail."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from livekit.agents import AgentSession, APIError
from livekit.agents.types import NOT_GIVEN

from tests.support.sessions import Sink
from tests.support.waiting import wait_until
from worker.recovery import manager_of
from worker.recovery.phrases import shipped
from worker.simulator import Options, SimulatorServer

EXAMPLES = Path(__file__).parents[2] / "worker" / "examples"


def test_after_is_before_and_one_line() -> None:
    before = (EXAMPLES / "before.py").read_text(encoding="utf-8").splitlines()
    after = (EXAMPLES / "after.py").read_text(encoding="utf-8").splitlines()
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("+ ", "- ")]
    assert changed == ["+     worker.setup_error_handling(session)"]


class Job:
    """What the examples use of a JobContext; there is no room, so the session is one of text."""

    room = NOT_GIVEN

    def __init__(self) -> None:
        self.ends: list[Callable[[], Awaitable[None]]] = []

    def add_shutdown_callback(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.ends.append(callback)


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options=Options(answer_words=(6, 6))) as server:
        yield server


async def said(session: Any, sink: Sink, text: str) -> str:
    before = len(sink.said)
    with contextlib.suppress(APIError):  # `run` raises what the turn met; the caller only sees the text
        await session.run(user_input=text)
    await wait_until(lambda: len(sink.said) > before, "something is said")
    return sink.said[-1]


@pytest.mark.parametrize("name", ["minimal", "before", "after", "custom_handlers", "own_audio"])
async def test_an_example(
    name: str, sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKER_SIMULATOR_URL", sim.url)
    monkeypatch.setenv("WORKER_AUDIO_CACHE_DIR", str(tmp_path))
    job, sink, sessions = Job(), Sink(), list[Any]()
    start = cast("Any", AgentSession).start

    async def started(session: Any, *args: Any, **kwargs: Any) -> Any:
        sessions.append(session)
        session.output.transcription = sink
        return await start(session, *args, **kwargs)

    monkeypatch.setattr(AgentSession, "start", started)
    await importlib.import_module(f"worker.examples.{name}").entrypoint(job)
    (session,) = sessions
    try:
        assert len((await said(session, sink, "Hello?")).split()) == 6
        assert (manager_of(session) is None) == (name == "before")
        for provider in ("groq", "openai"):
            sim.set_fault("llm", provider, "status", status=429, retry_after=1)
        if name == "before":
            return
        apology = await said(session, sink, "And now?")
        if name == "custom_handlers":
            assert apology.startswith("We are very busy right now.")
            for provider in ("groq", "openai"):
                sim.set_fault("llm", provider, "status", status=500)
            for _ in range(3):
                await said(session, sink, "Hello?")
            await wait_until(
                lambda: sink.said[-1].startswith("Hello, I am a colleague."), "the colleague greets"
            )
        else:
            assert apology in shipped("en")["llm.rate_limit"]
    finally:
        await session.aclose()
        for end in job.ends:
            await end()
