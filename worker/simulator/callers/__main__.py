"""``python -m worker.simulator.callers``: callers who join real rooms through LiveKit, one JSON line a turn."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from collections.abc import Coroutine, Sequence
from typing import Annotated, Any

import msgspec
import typer

from worker.simulator.callers.caller import Caller
from worker.simulator.callers.records import Turn
from worker.simulator.callers.room import call_room, token_for

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_AGAIN_S = 3.0
"""Before a caller whose call failed calls again."""


def show(turn: Turn) -> None:
    """One turn as a line of JSON."""
    print(msgspec.json.encode(turn).decode(), flush=True)


async def keep_calling(
    number: int, *, url: str, prefix: str, key: str, secret: str, turns: int, pause_s: float
) -> None:
    """Calls again and again, each time in a room of its own."""
    while True:
        name = f"caller-{number}"
        room = f"{prefix}{number}-{uuid.uuid4().hex[:8]}"
        caller = Caller(name, seed=number, on_turn=show)
        try:
            token = token_for(room, name, api_key=key, api_secret=secret)
            await call_room(caller, url=url, token=token, turns=turns)
            await asyncio.sleep(pause_s)
        except Exception as error:  # noqa: BLE001 - whatever ended a call, the caller calls again
            print(
                f"{name}: the call failed ({type(error).__name__}); calling again",
                file=sys.stderr,
                flush=True,
            )
            await asyncio.sleep(_AGAIN_S)


async def run(calls: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All callers, until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    tasks = [asyncio.create_task(call) for call in calls]
    await stopped.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@app.command()
def main(
    url: Annotated[str, typer.Option(envvar="LIVEKIT_URL", help="The LiveKit server.")],
    api_key: Annotated[str, typer.Option(envvar="LIVEKIT_API_KEY")],
    api_secret: Annotated[str, typer.Option(envvar="LIVEKIT_API_SECRET")],
    room_prefix: Annotated[str, typer.Option(help="Rooms are named this and a number.")] = "call-",
    count: Annotated[int, typer.Option(min=1, max=200, help="Callers at the same time.")] = 8,
    turns: Annotated[int, typer.Option(min=1, help="Turns a call.")] = 10,
    pause_s: Annotated[float, typer.Option(min=0, help="Seconds between a caller's calls.")] = 2.0,
) -> None:
    """Callers who speak and listen in real rooms."""
    calls = [
        keep_calling(
            number, url=url, prefix=room_prefix, key=api_key, secret=api_secret, turns=turns, pause_s=pause_s
        )
        for number in range(count)
    ]
    asyncio.run(run(calls))


if __name__ == "__main__":
    app()
