"""Time from chat() to the first chunk with text: GuardedLLM beside upstream's FallbackAdapter and a bare plugin.

All three over the same plugin objects and one stand-in, interleaved in one run, so that whatever the machine does
hits them alike. Run: python -m tests.benchmarks.bench_llm_first_chunk [rounds]
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
from typing import Any

from livekit.agents import llm
from livekit.plugins import groq

from tests.support.noted_link import NotedLink
from worker.guard.llm import GuardedLLM
from worker.providers import Clients

# The stand-in answers at once: what is measured is our own cost, not the wait for a model.
STAND_IN = """
import asyncio, sys
from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options
async def main():
    async with SimulatorServer(options=Options(llm_first_token_s=0.0, llm_token_s=0.0)) as sim:
        print(sim.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""


async def first_chunk_ms(model: llm.LLM[Any], number: int) -> float:
    """One request, read to its end; milliseconds to the first text."""
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=f"Question {number}")
    began = time.perf_counter()
    first = 0.0
    async with model.chat(chat_ctx=context) as stream:
        async for chunk in stream:
            if not first and chunk.delta is not None and chunk.delta.content:
                first = time.perf_counter() - began
    return first * 1000


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    """Medians need many rounds; the order within a round turns, so nobody always comes after a pause."""
    clients = Clients()
    sdk = clients.sdk(f"{url}/groq/openai/v1", "key")
    plugins: list[llm.LLM[Any]] = [groq.LLM(model=name, api_key="key", client=sdk) for name in ("one", "two")]
    models: dict[str, llm.LLM[Any]] = {
        "bare plugin": plugins[0],
        "upstream FallbackAdapter": llm.FallbackAdapter(plugins),
        "GuardedLLM": GuardedLLM(plugins, NotedLink()),
    }
    seen: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    for number in range(rounds + 20):
        for shift in range(len(names)):
            name = names[(number + shift) % len(names)]
            took = await first_chunk_ms(models[name], number)
            if number >= 20:
                seen[name].append(took)
        if number % 50 == 0:
            gc.collect()
    for model in models.values():
        await model.aclose()
    await clients.aclose()
    return seen


def report(seen: dict[str, list[float]]) -> None:
    """Median, p95 and the ratio to the peers."""
    medians = {name: statistics.median(values) for name, values in seen.items()}
    for name, values in seen.items():
        p95 = statistics.quantiles(values, n=20)[18]
        print(f"{name:26s} median {medians[name]:7.3f} ms   p95 {p95:7.3f} ms   n {len(values)}")
    ours = seen["GuardedLLM"]
    # Paired within each round: a burst of other work on the machine hits all three of a round alike.
    for peer in ("upstream FallbackAdapter", "bare plugin"):
        theirs = seen[peer]
        paired = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(
            f"GuardedLLM / {peer}: median ratio {medians['GuardedLLM'] / medians[peer]:.3f}, paired {paired:.3f}"
        )


def main() -> None:
    """Start a stand-in of its own process, so that its work is not in our loop."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with subprocess.Popen(
        [sys.executable, "-c", STAND_IN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stand_in:
        assert stand_in.stdout is not None
        assert stand_in.stdin is not None
        try:
            report(asyncio.run(measure(stand_in.stdout.readline().strip(), rounds)))
        finally:
            stand_in.stdin.close()


if __name__ == "__main__":
    main()
