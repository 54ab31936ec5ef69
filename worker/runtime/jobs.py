"""What runs in a job process: the user's entrypoint, with every session it starts put under guard.

Rule: the functions here are named in a pickle that crosses to the job process, so they live at module level
and read what they need from the environment that the container set.
"""

from __future__ import annotations

import os
from typing import cast

from livekit.agents import JobContext, JobProcess

from worker.link.api import Link
from worker.link.connect import connect
from worker.logs import configure_logs
from worker.runtime.agent_ref import SHIPPED, UserAgent, load_agent
from worker.settings import load_settings

_LINK = "livekit_supervisor.link"


def prewarm(proc: JobProcess) -> None:
    """Once per job process, before it has a call: logs, imports (half a second of them), the agent's own setup."""
    from worker.runtime import session_hook  # only job processes need what it imports

    settings = load_settings()
    configure_logs(settings, job=True)
    session_hook.warm_up(settings)
    agent = _agent()
    if agent.setup is not None:
        agent.setup(proc)


async def run_job(ctx: JobContext) -> None:
    """One call: connect to the container's link, guard the sessions, run the entrypoint."""
    from worker.runtime.session_hook import SessionHook  # as above

    agent, settings = _agent(), load_settings()
    link = await connect(settings)
    ctx.add_shutdown_callback(link.aclose)
    ctx.proc.userdata[_LINK] = link
    SessionHook(settings=settings, link=link, ctx=ctx).install()
    await agent.entrypoint(ctx)


async def end_job(ctx: JobContext) -> None:
    """The session is over: what the user's AgentServer wants done then."""
    ended = _agent().on_session_end
    if ended is not None:
        await ended(ctx)


def _agent() -> UserAgent:
    return load_agent(os.environ.get("WORKER_AGENT") or SHIPPED)


def link_of(ctx: JobContext) -> Link:
    """The link of the job that `run_job` runs. Raises KeyError outside of one."""
    return cast("Link", ctx.proc.userdata[_LINK])
