"""`python -m tests.support.worker_with_a_call AGENT`: a worker as `worker start` runs it, with one call.

The call is in a job process, and no rehearsal: the worker lets it end as in production. LiveKit is looked for in
vain meanwhile.
"""

from __future__ import annotations

import asyncio
import sys

from livekit.agents import AgentServer

from worker.logs import configure_logs
from worker.runtime import server as runtime
from worker.settings import WorkerSettings, load_settings

_made = runtime._agent_server  # pyright: ignore[reportPrivateUsage]  # the one seam where the server can be had
_calls: list[asyncio.Task[None]] = []


def _with_a_call(
    settings: WorkerSettings, options: runtime.ServeOptions, agent: runtime.UserAgent
) -> AgentServer:
    server = _made(settings, options, agent)

    async def place() -> None:
        await asyncio.sleep(0)
        await server.simulate_job(room="call", fake_job=True)

    def started() -> None:
        _calls.append(asyncio.create_task(place()))

    server.once("worker_started", started)  # pyright: ignore[reportUnknownMemberType]  # livekit's events are untyped
    return server


if __name__ == "__main__":
    given = load_settings()
    configure_logs(given)
    runtime._agent_server = _with_a_call  # pyright: ignore[reportPrivateUsage]  # as above
    asyncio.run(runtime.serve(given, runtime.ServeOptions(agent=sys.argv[1])))
