"""The real Groq and OpenAI language model plugins against the stand-ins, healthy and with every fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError, llm

from tests.support.simulated import Reply, ask, body_of
from tests.support.waiting import wait_until
from worker.simulator import SimulatorServer, answer_for
from worker.simulator.plugins import groq_llm, openai_llm

Build = Callable[[str], llm.LLM[Any]]
PROVIDERS = {"groq": groq_llm, "openai": openai_llm}
QUESTION = ("user", "What is on the table?")


@pytest.fixture
async def sim() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer() as server:
        yield server


@pytest.fixture(params=sorted(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def model(sim: SimulatorServer, provider: str) -> AsyncIterator[llm.LLM[Any]]:
    plugin = PROVIDERS[provider](sim.url)
    yield plugin
    await plugin.aclose()


async def test_an_answer_comes_whole_with_its_usage(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    reply = await ask(model, QUESTION)
    assert reply.text == answer_for(QUESTION[1])
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(reply.text.split())
    (request,) = sim.requests(role="llm")
    assert (request["provider"], request["model"], request["status"]) == (provider, model.model, 200)
    assert request["outcome"] == "ok"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 498, 500, 503])
async def test_a_status_is_the_providers_own_error(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str, status: int
) -> None:
    sim.set_fault("llm", provider, "status", status=status, retry_after=7)
    with pytest.raises(APIStatusError) as caught:
        await ask(model, QUESTION)
    assert caught.value.status_code == status
    assert {"message", "type"} <= set(body_of(caught.value))
    (request,) = sim.requests(role="llm")
    assert (request["fault"], request["status"], request["outcome"]) == ("status", status, "fault")


async def test_a_rate_limit_says_when_to_come_back(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "status", status=429, retry_after=7)
    seen: dict[str, str] = {}

    def look(error: llm.LLMError) -> None:
        # The plugin's own exception holds the response only while this runs.
        cause = error.error.__context__
        seen.update(getattr(getattr(cause, "response", None), "headers", {}))

    cast("Any", model).on("error", look)
    with pytest.raises(APIStatusError, match="try again in 7s"):
        await ask(model, QUESTION)
    assert seen["retry-after"] == "7"
    assert seen["x-ratelimit-remaining-tokens"] == "0"


async def test_a_quota_code_can_be_asked_for(sim: SimulatorServer) -> None:
    plugin = openai_llm(sim.url)
    sim.set_fault("llm", "openai", "status", status=429, code="insufficient_quota")
    with pytest.raises(APIStatusError) as caught:
        await ask(plugin, QUESTION)
    assert body_of(caught.value)["code"] == "insufficient_quota"


async def test_a_bad_key_is_refused(sim: SimulatorServer, provider: str) -> None:
    with pytest.raises(APIStatusError) as caught:
        await ask(PROVIDERS[provider](sim.url, api_key="bad-key"), QUESTION)
    assert caught.value.status_code == 401
    assert body_of(caught.value)["code"] == "invalid_api_key"


async def test_a_hang_answers_nothing(sim: SimulatorServer, model: llm.LLM[Any], provider: str) -> None:
    sim.set_fault("llm", provider, "hang")
    with pytest.raises(APITimeoutError):
        await ask(model, QUESTION)
    await wait_until(lambda: sim.requests()[0]["outcome"] == "abandoned", "the hang is noted as abandoned")
    assert sim.requests()[0]["status"] is None


async def test_slow_waits_before_the_first_token(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "slow", delay_s=0.5)
    started_mono = time.monotonic()
    reply = await ask(model, QUESTION)
    assert reply.text == answer_for(QUESTION[1])
    assert time.monotonic() - started_mono >= 0.5


async def test_a_cut_breaks_off_after_so_many_words(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "cut", after_chunks=4)
    reply = Reply()
    with pytest.raises(APIConnectionError):
        await ask(model, QUESTION, into=reply)
    assert reply.text.split() == answer_for(QUESTION[1]).split()[:4]
    assert reply.usage is None


async def test_a_clean_cut_looks_like_an_end_without_usage(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "cut", after_chunks=4, clean=True)
    reply = await ask(model, QUESTION)
    assert reply.text.split() == answer_for(QUESTION[1]).split()[:4]
    assert reply.usage is None


async def test_an_error_can_come_in_mid_stream(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "status", status=500, mid_stream=True, after_chunks=2)
    reply = Reply()
    with pytest.raises(APIConnectionError):
        await ask(model, QUESTION, into=reply)
    assert len(reply.text.split()) == 2


async def test_empty_has_no_words_but_a_good_end(
    sim: SimulatorServer, model: llm.LLM[Any], provider: str
) -> None:
    sim.set_fault("llm", provider, "empty")
    reply = await ask(model, QUESTION)
    assert reply.text == ""
    assert reply.usage is not None
    assert sim.requests()[0]["outcome"] == "fault"


async def test_refuse_gives_no_response(sim: SimulatorServer, model: llm.LLM[Any], provider: str) -> None:
    sim.set_fault("llm", provider, "refuse")
    with pytest.raises(APIConnectionError) as caught:
        await ask(model, QUESTION)
    assert not isinstance(caught.value, APIStatusError)
    assert sim.requests()[0]["status"] is None


async def test_a_fault_on_one_model_leaves_the_others(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "status", status=503, model="openai/gpt-oss-20b")
    with pytest.raises(APIStatusError):
        await ask(groq_llm(sim.url, "openai/gpt-oss-20b"), QUESTION)
    assert (await ask(groq_llm(sim.url), QUESTION)).text


async def test_a_waiting_request_is_not_met_by_a_new_fault(sim: SimulatorServer) -> None:
    sim.set_fault("llm", "groq", "slow", delay_s=0.4)
    asking = asyncio.create_task(ask(groq_llm(sim.url), QUESTION))
    await wait_until(lambda: len(sim.requests(role="llm")) == 1, "the request has come in")
    sim.set_fault("llm", "groq", "status", status=503)
    assert (await asking).text == answer_for(QUESTION[1])


@pytest.mark.parametrize("mode", ["continue", "repeat3", "restart"])
async def test_a_cut_off_answer_goes_on_in_each_way(sim: SimulatorServer, mode: str) -> None:
    whole = answer_for(QUESTION[1]).split()
    sim.set_continue("groq", "llama-3.3-70b-versatile", mode)  # pyright: ignore[reportArgumentType] - a literal
    reply = await ask(
        groq_llm(sim.url),
        QUESTION,
        ("assistant", " ".join(whole[:6])),
        ("system", "Your answer was cut off. Please continue exactly where it stopped."),
    )
    start = {"continue": 6, "repeat3": 3, "restart": 0}[mode]
    assert reply.text.split() == whole[start:]


async def test_a_tool_is_called_when_it_is_named(sim: SimulatorServer) -> None:
    @llm.function_tool
    async def look_up(city: str, days: int) -> str:
        """The weather."""
        return f"{city} {days}"

    reply = await ask(groq_llm(sim.url), ("user", "Please use tool look_up for me."), tools=[look_up])
    assert reply.calls == [("look_up", '{"city": "amber", "days": 1}')]
    assert reply.text == ""
    assert (await ask(groq_llm(sim.url), ("user", "Please use tool other."), tools=[look_up])).text
