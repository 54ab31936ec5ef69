"""Words of an answer that is cut off while it is given: our guards beside upstream's FallbackAdapters.

Real plugins against the stand-ins: a model's answer goes word by word into a voice, and what is heard is decoded from
the sound. Each answer really is cut, at another word every time. Either the first model is cut and the second one goes
on (it continues, says the last three words again, or begins anew), or the first voice is (one with word times, or one
without, where the sentence being spoken may be said again).
Run: python -m tests.benchmarks.bench_cut_words [answers]
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import structlog
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, llm, tts
from livekit.plugins import cartesia, groq, openai

from tests.support.noted_link import NotedLink
from tests.support.simulated import words_in
from worker.guard.llm import GuardedLLM
from worker.guard.tts import GuardedTTS
from worker.providers import Clients
from worker.simulator.answers import ContinueMode, answer_for
from worker.simulator.callers.records import judge
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

AT_ONCE: Final = 5
CASES: Final[dict[str, ContinueMode | None]] = {
    "llm, the next one continues": "continue",
    "llm, says three words again": "repeat3",
    "llm, begins anew": "restart",
    "tts, with word times": None,
    "tts, without": None,
}
VARIANTS: Final = ("upstream FallbackAdapter", "our guard")
TARGETS: Final = (
    "llm:groq:llama-3.3-70b-versatile",
    "tts:cartesia:sonic-3",
    "tts:groq:canopylabs/orpheus-v1-english",
)
# As sessions have it by default: upstream's adapters retry within these.
DEFAULTS: Final = APIConnectOptions()


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer: words lost and said twice, and whether what was said twice is part of one sentence at most."""

    cut: bool
    lost: int
    twice: int
    one_sentence: bool


@contextlib.asynccontextmanager
async def agent(
    variant: str, case: str, sim: SimulatorServer
) -> AsyncGenerator[tuple[llm.LLM[Any], tts.TTS[Any]]]:
    """A model and a voice of two providers each."""
    clients = Clients(verify=False)  # the stand-ins speak plain HTTP
    async with aiohttp.ClientSession() as session:
        models: list[llm.LLM[Any]] = [
            groq.LLM(api_key="key", client=clients.sdk(sim.base_url("groq"), "key")),
            openai.LLM(model="gpt-4.1-mini", client=clients.sdk(sim.base_url("openai"), "key")),
        ]
        voices: list[tts.TTS[Any]] = [
            cartesia.TTS(api_key="key", base_url=sim.base_url("cartesia"), http_session=session),
            groq.TTS(api_key="key", base_url=sim.base_url("groq"), http_session=session),
        ]
        if case == "tts, without":
            voices.reverse()
        if variant == "our guard":
            link = NotedLink()  # no supervisor: the built-in defaults are all that a call has
            link.deadlines(*TARGETS, first_output_ms=5_000, stall_ms=3_000)
            model, voice = GuardedLLM(models, link), GuardedTTS(voices, link)
        else:
            model, voice = llm.FallbackAdapter(models), tts.FallbackAdapter(voices)
        try:
            yield model, voice
        finally:
            for each in (model, voice, *voices):
                await each.aclose()
            await clients.aclose()


async def talk(model: llm.LLM[Any], voice: tts.TTS[Any], question: str) -> list[str]:
    """The words of an answer as they are heard."""
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=question)
    frames: list[rtc.AudioFrame] = []
    async with voice.stream(conn_options=DEFAULTS) as speech:

        async def think() -> None:
            with contextlib.suppress(APIError):
                async with model.chat(chat_ctx=context, conn_options=DEFAULTS) as stream:
                    async for chunk in stream:
                        if chunk.delta is not None and chunk.delta.content:
                            speech.push_text(chunk.delta.content)
            speech.end_input()

        thinking = asyncio.create_task(think())
        with contextlib.suppress(APIError):
            async for event in speech:
                frames.append(event.frame)  # noqa: PERF401 - what came before a failure was heard
        await thinking
    return words_in(frames)


async def answer(variant: str, case: str, number: int) -> Heard:
    """One question, one answer that is cut off at a word of its own."""
    question = f"What is there to see in harbour number {number}?"
    words = answer_for(question).split()
    role, mode = case[:3], CASES[case]
    async with (
        SimulatorServer(options=Options(llm_token_s=0.005, tts_speed=30.0)) as sim,
        agent(variant, case, sim) as (model, voice),
    ):
        await talk(model, voice, "Warm up, please.")  # so that usage is known to come
        if mode is not None:
            sim.set_continue("openai", "gpt-4.1-mini", mode)
            sim.set_fault("llm", "groq", "cut", after_chunks=1 + number % (len(words) - 1))
        else:
            first = "groq" if case == "tts, without" else "cartesia"
            sim.set_fault("tts", first, "cut", after_chunks=2 + number % 20)
        sim.clear_requests()
        heard = await talk(model, voice, question)
        cut = any(request["outcome"] == "fault" for request in sim.requests(role=role))
    found = judge(words, heard)
    return Heard(cut, len(found.lost), len(found.twice), _one_sentence(words, heard))


def _one_sentence(words: list[str], heard: list[str]) -> bool:
    """Whether `heard` is `words` with at most the sentence being spoken said again from its beginning."""
    again = len(heard) - len(words)
    starts = [0, *(n + 1 for n, word in enumerate(words) if word[-1] in ".!?")]
    return any(
        0 <= again <= end - start and heard == [*words[: start + again], *words[start:]]
        for start, end in zip(starts, [*starts[1:], len(words)], strict=True)
    )


async def measure(answers: int) -> None:
    """Prints one row a variant and case."""
    print(f"{answers} answers each, every one cut off at a word of its own; words decoded from the sound")
    print(
        f"{'variant':<26}{'cut':<30}{'were cut':>9}{'complete':>10}{'lost':>6}{'twice':>7}{'a sentence at most':>20}"
    )
    for variant in VARIANTS:
        for case in CASES:
            heard: list[Heard] = []
            for start in range(0, answers, AT_ONCE):
                wave = range(start, min(start + AT_ONCE, answers))
                heard += await asyncio.gather(*(answer(variant, case, number) for number in wave))
            complete = sum(1 for h in heard if not h.lost and not h.twice)
            lost, twice = sum(h.lost for h in heard), sum(h.twice for h in heard)
            print(
                f"{variant:<26}{case:<30}{sum(h.cut for h in heard):>9}{f'{complete}/{len(heard)}':>10}{lost:>6}"
                f"{twice:>7}{f'{sum(h.one_sentence for h in heard)}/{len(heard)}':>20}",
                flush=True,
            )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
