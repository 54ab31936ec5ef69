"""One worker container: the AgentServer that runs calls in job processes, and the link they all share.

Stopping: the first SIGTERM or SIGINT, like a drain directive, lets running calls end, up to the drain timeout; a
second signal ends the calls within seconds, a third one the process as it stands. In dev mode and in rehearsals
nothing is waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import structlog
from livekit.agents import AgentServer

from supervisor.wire.vocabulary import WorkerState
from worker.link.container import ContainerLink
from worker.recovery.from_settings import check_error_audio
from worker.runtime import jobs
from worker.runtime.agent_ref import SHIPPED, UserAgent, load_agent
from worker.settings import WorkerSettings

log = structlog.get_logger(__name__)


class CannotServe(RuntimeError):
    """The worker had to give up. The text is one line that names the settings to look at."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to run. local_callers: rehearse with that many callers in this machine and no LiveKit server."""

    agent: str = SHIPPED
    dev: bool = False
    local_callers: int = 0


async def serve(settings: WorkerSettings, options: ServeOptions) -> None:
    """Run one worker until it is told to stop.

    Raises `AgentNotFound`, or `WrongSetting` when the shipped agent lacks keys or the
    error audio cannot be played, before anything is started, and
    `CannotServe` when it cannot listen, or when LiveKit was given up; calls that still run may end first.
    """
    check_error_audio(settings)
    agent = load_agent(options.agent)
    if agent.ref == SHIPPED:
        from worker.providers import start_notes  # imported by the shipped agent already; others do without

        for note in start_notes(settings):
            log.info(note, action="providers")
    stop = Stop()
    stop.on_signals()
    async with _link(settings, agent, stop, options.local_callers) as link:
        server = _agent_server(settings, options, agent)
        if not options.local_callers:
            log.info("registers with LiveKit", action="livekit.register", url=settings.livekit_url)
        running = asyncio.create_task(
            server.run(devmode=options.dev, unregistered=bool(options.local_callers)), name="agent-server"
        )
        helpers: list[asyncio.Task[Any]] = [
            asyncio.create_task(_keep_state(link, server), name="worker-state")
        ]
        if options.local_callers:
            helpers.append(
                asyncio.create_task(_rehearse(server, options.local_callers), name="local-callers")
            )
        stopped: asyncio.Task[Any] = asyncio.create_task(stop.asked.wait())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in helpers:
                task.cancel()
            # Also when the server ended by itself: its calls may end, and its processes must, or this one never does.
            patient = not (options.dev or options.local_callers)
            if patient and (stop.asked.is_set() or server.active_jobs):
                await _drain(server, link, stop)
            await server.aclose()
            await _outcome(running, settings)
        finally:
            for task in (*helpers, stopped):
                task.cancel()
            await asyncio.gather(*helpers, stopped, return_exceptions=True)


async def _outcome(running: asyncio.Task[None], settings: WorkerSettings) -> None:
    """A failure to listen, or to register within livekit's attempts (about two minutes), in one line."""
    try:
        await running
    except OSError as exc:
        raise CannotServe(
            f"cannot listen on {settings.health_host}:{settings.health_port} ({os.strerror(exc.errno or 0)});"
            " see WORKER_HEALTH_HOST and WORKER_HEALTH_PORT"
        ) from exc
    except RuntimeError as exc:
        if "livekit" not in str(exc):
            raise
        raise CannotServe(
            f"LiveKit at {settings.livekit_url} was given up ({exc});"
            " see LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
        ) from exc


class Stop:
    """asked: end, but let calls end first. hurry: do not wait for them any longer."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self._signals = 0

    def on_signals(self) -> None:
        """Listen to SIGTERM and SIGINT, in the running loop."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, self.signalled)

    def signalled(self) -> None:
        """The operator asked: once, twice, or for the third time.

        A drain directive is none of these: the SIGTERM that usually comes after it must not end calls.
        """
        self._signals += 1
        self.asked.set()
        if self._signals == 2:
            self.hurry.set()
        elif self._signals > 2:
            os._exit(1)


@asynccontextmanager
async def _link(
    settings: WorkerSettings, agent: UserAgent, stop: Stop, local_callers: int
) -> AsyncGenerator[ContainerLink]:
    link = ContainerLink.from_settings(settings, agent=agent.ref)
    link.on_drain(stop.asked.set)
    await link.start()
    # Job processes inherit these; they are started later, by the AgentServer.
    os.environ["WORKER_LINK_SOCKET"] = link.socket_path
    os.environ["WORKER_AGENT"] = agent.ref
    os.environ["WORKER_ID"] = link.worker
    os.environ["WORKER_LOCAL_CALLERS"] = str(local_callers) if local_callers else ""
    try:
        yield link
    finally:
        await link.aclose()


def _agent_server(settings: WorkerSettings, options: ServeOptions, agent: UserAgent) -> AgentServer:
    # Several rehearsing workers often share a machine: a free port each, unless one was asked for.
    free_port = options.local_callers and "health_port" not in settings.model_fields_set
    server = AgentServer(
        setup_fnc=jobs.prewarm,
        host=settings.health_host,
        port=0 if free_port else settings.health_port,
        initialize_process_timeout=60.0,
        num_idle_processes=1,
        drain_timeout=settings.drain_timeout_s,
        shutdown_process_timeout=3.0 if options.local_callers else 10.0,
        preload_modules=["worker.runtime.forkserver"],
    )
    if options.local_callers:
        # Real load shedding would refuse callers on a small machine; the number was asked for.
        server.load_fnc = lambda: 0.0
    elif settings.max_calls:
        server.load_fnc = lambda s: len(s.active_jobs) / settings.max_calls  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType, reportUnknownArgumentType]  # livekit takes either shape of function
        server.update_options(load_threshold=1.0)
    server.rtc_session(
        jobs.run_job,
        agent_name=agent.agent_name or settings.agent_name,
        on_request=agent.on_request,
        on_session_end=jobs.end_job if agent.on_session_end is not None else None,
    )
    return server


async def _keep_state(link: ContainerLink, server: AgentServer) -> None:
    """Tell the fleet what the AgentServer is doing; its own health page does not show draining."""
    while True:
        link.set_state(WorkerState.DRAINING if server.draining else WorkerState.RUNNING)
        await asyncio.sleep(1.0)


async def _rehearse(server: AgentServer, callers: int) -> None:
    """Keep `callers` calls going: a job process each, started one after the other, again when a caller hangs up."""
    started = asyncio.Event()
    cast("Any", server).once("worker_started", started.set)
    if not getattr(server, "_close_future", None):
        await started.wait()
    number = 0
    while True:
        if len(server.active_jobs) >= callers:
            await asyncio.sleep(0.5)
            continue
        number += 1
        try:
            await server.simulate_job(room=f"call-{os.environ['WORKER_ID']}-{number}", fake_job=True)
        except Exception as exc:  # noqa: BLE001  # a job process that did not start: the next call has another one
            log.error("call not placed", action="rehearsal_call_failed", exception=type(exc).__name__)
            await asyncio.sleep(0.5)


async def _drain(server: AgentServer, link: ContainerLink, stop: Stop) -> None:
    """Take no new calls, and wait for the ones there are: up to the operator's timeout, or until he is in a hurry."""
    link.set_state(WorkerState.DRAINING)
    log.info("worker draining", action="worker_draining", calls=len(server.active_jobs))
    draining = asyncio.create_task(server.drain())
    hurry = asyncio.create_task(stop.hurry.wait())
    await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, hurry):
        task.cancel()
    ended, _ = await asyncio.gather(draining, hurry, return_exceptions=True)
    if server.active_jobs:
        log.warning("calls are ended", action="worker_calls_ended", calls=len(server.active_jobs))
    if isinstance(ended, Exception) and not isinstance(ended, TimeoutError):
        log.error("draining failed", action="worker_drain_failed", exception=type(ended).__name__)
