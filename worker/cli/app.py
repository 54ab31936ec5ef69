"""`worker start · dev · console · check · healthcheck` (make-audio lives in `make_audio.py`)."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import Annotated, NoReturn

import typer

from worker.cli.make_audio import make_audio
from worker.runtime.agent_ref import SHIPPED, AgentNotFound, load_agent

app = typer.Typer(
    name="worker",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run LiveKit voice agents that recover by themselves. Settings: WORKER_*, REDIS_URL, LIVEKIT_*, keys.",
)

app.command("make-audio")(make_audio)

Agent = Annotated[
    str,
    typer.Option(
        "--agent",
        envvar="WORKER_AGENT",
        help="your own agent: pkg.module:server (an AgentServer) or pkg.module:entrypoint",
        show_default="the shipped one",
    ),
]
Callers = Annotated[
    int,
    typer.Option(
        "--local-callers",
        min=0,
        max=200,
        help="rehearse without a LiveKit server: this many callers who really speak and listen",
    ),
]


def _fail(line: str, code: int = 1) -> NoReturn:
    typer.echo(f"worker: {line}", err=True)
    raise typer.Exit(code)


def _serve(agent: str, *, dev: bool, local_callers: int) -> None:
    from worker.logs import configure_logs
    from worker.settings import WrongSetting, load_settings

    settings = load_settings()
    configure_logs(settings)
    if not local_callers and not (
        os.environ.get("LIVEKIT_URL")
        and os.environ.get("LIVEKIT_API_KEY")
        and os.environ.get("LIVEKIT_API_SECRET")
    ):
        _fail(
            "set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET, or rehearse with --local-callers 2", 2
        )
    from worker.runtime.server import CannotServe, ServeOptions, serve  # livekit comes with it: seconds

    try:
        asyncio.run(serve(settings, ServeOptions(agent=agent, dev=dev, local_callers=local_callers)))
    except (AgentNotFound, WrongSetting) as exc:
        _fail(str(exc), 2)
    except CannotServe as exc:
        _fail(str(exc))


@app.command()
def start(agent: Agent = SHIPPED, local_callers: Callers = 0) -> None:
    """Run a worker for production: SIGTERM lets calls end first.

    Example: worker start --agent my_bot.main:entrypoint
    """
    _serve(agent, dev=False, local_callers=local_callers)


@app.command()
def dev(agent: Agent = SHIPPED, local_callers: Callers = 0) -> None:
    """Run a worker while developing: one warm process, Ctrl-C ends at once.

    Example: worker dev --agent my_bot.main:entrypoint
    """
    _serve(agent, dev=True, local_callers=local_callers)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def console(ctx: typer.Context, agent: Agent = SHIPPED) -> None:
    """Talk to the agent in this terminal, by microphone or text (`--text`); other options go to livekit's console.

    Example: worker console --agent my_bot.main:entrypoint --text
    """
    from livekit.agents import AgentServer, cli

    from worker.recovery.from_settings import check_error_audio
    from worker.runtime import jobs
    from worker.settings import WrongSetting, load_settings

    settings = load_settings()
    try:
        check_error_audio(settings)
        load_agent(agent)
    except (AgentNotFound, WrongSetting) as exc:
        _fail(str(exc), 2)
    try:
        importlib.import_module("sounddevice")  # livekit's console does, with `--text` as well
    except OSError:
        _fail(
            "the console needs the PortAudio library: apt-get install libportaudio2, or brew install portaudio"
        )
    os.environ["WORKER_AGENT"] = agent
    server = AgentServer(setup_fnc=jobs.prewarm)
    server.rtc_session(jobs.run_job)
    sys.argv = ["worker", "console", *ctx.args]
    cli.run_app(server)


@app.command()
def check(
    agent: Agent = SHIPPED,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    probe: Annotated[bool, typer.Option(help="send one real, minimal request to every provider")] = False,
) -> None:
    """Look at settings, agent, Redis and providers before callers do.
    Exit code 1 when something is wrong, 2 for a wrong setting.

    Example: worker check --probe
    """
    from worker.cli.checks import run_checks
    from worker.recovery.from_settings import check_error_audio
    from worker.settings import WrongSetting, load_settings

    settings = load_settings()
    try:
        check_error_audio(settings)
    except WrongSetting as exc:
        _fail(str(exc), 2)
    findings = asyncio.run(run_checks(settings, agent, probe=probe))
    if as_json:
        typer.echo(json.dumps({"ok": all(f.ok for f in findings), "items": [f.as_dict() for f in findings]}))
    else:
        for finding in findings:
            mark = typer.style("ok  ", fg="green") if finding.ok else typer.style("FAIL", fg="red")
            typer.echo(f"{mark} {finding.name}: {finding.detail}")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


@app.command()
def healthcheck(
    url: Annotated[
        str,
        typer.Option(
            help="where the worker's health page is", show_default="this machine, WORKER_HEALTH_PORT"
        ),
    ] = "",
) -> None:
    """Ask a running worker how it is (for container health checks): exit code 0 when it is well."""
    import httpx

    url = url or f"http://127.0.0.1:{os.environ.get('WORKER_HEALTH_PORT') or 8081}/"
    try:
        answer = httpx.get(url, timeout=3.0)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        _fail(f"{url} does not answer ({type(exc).__name__})")
    if answer.status_code != 200:
        _fail(f"{url} says {answer.status_code}: {answer.text[:100]}")
    typer.echo("ok")
