"""``python -m worker.simulator``: the stand-ins as a process of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

import typer

from worker.simulator.server import SimulatorServer
from worker.simulator.stand import Options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


async def serve(host: str, port: int, options: Options) -> None:
    """Listens until SIGTERM or SIGINT; prints one line when it is ready."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with SimulatorServer(host, port, options) as server:
        print(f"provider stand-ins listening on {server.url}", flush=True)
        await stopped.wait()


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 9100,
    seed: Annotated[int, typer.Option(help="Another seed gives other answers.")] = 0,
    voice_model: Annotated[bool, typer.Option(help="Let each model answer in its own words.")] = False,
    llm_first_token_ms: Annotated[float, typer.Option(min=0)] = 60.0,
    llm_token_ms: Annotated[float, typer.Option(min=0)] = 15.0,
    tts_first_audio_ms: Annotated[float, typer.Option(min=0)] = 60.0,
    tts_speed: Annotated[float, typer.Option(min=0.5, help="Seconds of speech made in one second.")] = 8.0,
    stt_final_ms: Annotated[float, typer.Option(min=0)] = 120.0,
) -> None:
    """Stand-ins for Groq, OpenAI and Cartesia on one port."""
    options = Options(
        seed=seed,
        voice_model=voice_model,
        llm_first_token_s=llm_first_token_ms / 1000,
        llm_token_s=llm_token_ms / 1000,
        tts_first_audio_s=tts_first_audio_ms / 1000,
        tts_speed=tts_speed,
        stt_final_s=stt_final_ms / 1000,
    )
    try:
        asyncio.run(serve(host, port, options))
    except OSError as error:
        print(f"the stand-ins cannot listen on {host}:{port}: {error.strerror}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    app()
