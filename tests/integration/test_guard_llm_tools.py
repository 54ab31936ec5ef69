"""A tool call that a cut stream had begun: run once by a real session, never twice, never half."""

from __future__ import annotations

import pytest
from livekit.agents import Agent, function_tool

from tests.support.guarded_llm import benched
from tests.support.sessions import text_call
from worker.simulator.answers import answer_for

# What the stand-in streams for a call: its head, then its arguments in two pieces; 4 is after the last of them.
CALL = 3
WORDS = len(answer_for("Talk and use tool count.").split())


class Counting(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Answer.")  # pyright: ignore[reportUnknownMemberType] - livekit leaves its parts' event types open
        self.ran: list[str] = []

    @function_tool
    async def count(self, place: str) -> str:
        """Count something."""
        self.ran.append(place)
        return "done"


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("question", "after"),
    [
        *[("Use tool count.", after) for after in (1, 2, CALL)],
        *[("Talk and use tool count.", after) for after in (1, WORDS, *range(WORDS + 1, WORDS + CALL + 1))],
    ],
)
async def test_a_tool_call_before_a_cut_runs_once(question: str, after: int, clean: bool) -> None:
    agent = Counting()
    async with benched() as bench, text_call(bench.guarded, agent=agent) as call:
        await call.ask("Warm up, please.")
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=after, clean=clean)
        await call.ask(question)
        assert agent.ran == ["amber"]
        if question.startswith("Talk"):
            assert answer_for(question).split() == call.said[1].split()[:WORDS], "nothing lost, nothing twice"


@pytest.mark.parametrize("after", range(WORDS + 1, WORDS + CALL + 1))
async def test_half_a_call_in_a_models_first_answer_is_no_good_end(after: int) -> None:
    """Nothing is known yet of how its answers end: with their usage, or without."""
    agent = Counting()
    async with benched() as bench, text_call(bench.guarded, agent=agent) as call:
        bench.sim.set_fault("llm", "groq", "cut", after_chunks=after, clean=True)
        await call.ask("Talk and use tool count.")
        assert agent.ran == ["amber"]
        assert call.said[0].split()[:WORDS] == answer_for("Talk and use tool count.").split()
