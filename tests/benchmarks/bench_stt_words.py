"""Words of an utterance whose recogniser fails after some of them: GuardedSTT beside upstream's FallbackAdapter.

Real plugins (Cartesia's, then Groq's) against the stand-ins, real speech in real time; after one to six interim
transcripts the first recogniser is cut off, hangs or goes silent. Counted: utterances whose final transcript is
complete, word for word, within 10 s after the last word. Run: python -m tests.benchmarks.bench_stt_words [utterances]
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from livekit.agents import stt
from livekit.plugins import cartesia, groq

from tests.support.noted_link import NotedLink
from tests.support.speaking import RATE, SPEECH, Caller, Kind, detector
from tests.support.waiting import WaitTimeout, wait_until
from worker.guard.stt import GuardedSTT
from worker.simulator.server import SimulatorServer

AT_ONCE = 5
PATIENCE_S = 10.0
FAULTS = ("cut", "hang", "silent")
Make = Callable[[list[stt.STT[Any]]], stt.STT[Any]]


def link() -> NotedLink:
    """No supervisor: the built-in defaults are all that a call has."""
    noted = NotedLink()
    noted.deadlines(
        "stt:cartesia:ink-2", "stt:groq:whisper-large-v3-turbo", first_output_ms=3_000, stall_ms=3_000
    )
    return noted


VARIANTS: dict[str, Make] = {
    "upstream FallbackAdapter": lambda plugins: stt.FallbackAdapter(plugins, vad=detector()),
    "GuardedSTT": lambda plugins: GuardedSTT(plugins, link(), detector=detector()),
}


@dataclass
class Heard:
    """One utterance: words lost and said twice; seconds from the last word to the final transcript."""

    lost: int
    twice: int
    waited_s: float | None


async def utterance(make: Make, fault: str, number: int) -> Heard:
    """One caller, one sentence, one fault in the middle of it."""
    texts = list(SPEECH)
    text = texts[number % len(texts)]
    # The last interim transcripts come when the sentence is over: the fault is to be within it.
    after = 1 + number % max(1, min(6, len(text.split()) - 3))
    async with SimulatorServer() as sim, aiohttp.ClientSession() as session:
        first = cartesia.STT(api_key="key", base_url=sim.base_url("cartesia"), http_session=session)
        second = groq.STT(api_key="key", base_url=sim.base_url("groq"))
        model = make([first, second])
        try:
            async with model.stream() as stream:
                caller = Caller(stream)
                loop = asyncio.get_running_loop()
                over = loop.time() + len(SPEECH[text]) / RATE
                caller.say(text)
                await wait_until(lambda: caller.count(Kind.INTERIM_TRANSCRIPT) >= after, "some words")
                sim.set_fault("stt", "cartesia", fault)
                waited: float | None = None
                try:
                    await wait_until(
                        lambda: caller.finals().split()[-1:] == text.split()[-1:],
                        "the last word",
                        over - loop.time() + PATIENCE_S,
                    )
                    waited = loop.time() - over
                except WaitTimeout:
                    pass
                await caller.aclose()
        finally:
            for each in (model, first, second):
                await each.aclose()
    wanted, got = text.split(), caller.finals().split()
    lost = sum(1 for word in set(wanted) for _ in range(max(0, wanted.count(word) - got.count(word))))
    twice = sum(1 for word in set(got) for _ in range(max(0, got.count(word) - wanted.count(word))))
    return Heard(lost, twice, waited)


async def measure(utterances: int) -> None:
    """Prints one row a variant and fault."""
    print(f"{utterances} utterances each; two recognisers; the first fails after 1 to 6 interim transcripts")
    print(f"{'variant':<26}{'fault':<8}{'complete':>9}{'lost':>6}{'twice':>6}{'wait p50':>10}{'max':>8}")
    for name, make in VARIANTS.items():
        for fault in FAULTS:
            heard: list[Heard] = []
            for start in range(0, utterances, AT_ONCE):
                wave = range(start, min(start + AT_ONCE, utterances))
                heard += await asyncio.gather(*(utterance(make, fault, number) for number in wave))
            complete = sum(1 for h in heard if not h.lost and not h.twice and h.waited_s is not None)
            waits = [h.waited_s for h in heard if h.waited_s is not None]
            middle = f"{statistics.median(waits):.2f} s" if waits else "-"
            longest = f"{max(waits):.2f} s" if waits else "-"
            lost, twice = sum(h.lost for h in heard), sum(h.twice for h in heard)
            print(
                f"{name:<26}{fault:<8}{f'{complete}/{len(heard)}':>9}{lost:>6}{twice:>6}{middle:>10}{longest:>8}"
            )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
