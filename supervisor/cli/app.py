"""All commands together, and how they end."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from supervisor import __version__
from supervisor.cli import change, read, serve
from supervisor.cli.errors import CliError
from supervisor.cli.output import complain, say

# Commands that need more than this package's base: loaded when asked for, so that looking stays quick.
_LATER = {"demo": "supervisor.demo.cli", "drill": "supervisor.demo.cli"}
_LATER_HELP = {
    "demo": "Run it all on this machine: Redis, provider stand-ins, supervisor, workers, callers.",
    "drill": "Break a service under load and measure plain, upstream and guarded side by side.",
}


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _later(name: str) -> Any:
    if not _has("livekit.agents"):
        raise CliError(
            f"`supervisor {name}` starts workers; install the extra: pip install 'livekit-supervisor[worker]'"
        )
    if not _has("fastapi"):
        raise CliError(
            f"`supervisor {name}` starts a supervisor; install the extra: pip install 'livekit-supervisor[supervisor]'"
        )
    one = typer.Typer(add_completion=False)
    one.command(name)(getattr(importlib.import_module(_LATER[name]), name))
    return typer.main.get_command(one)


class _Group(TyperGroup):
    """The group with commands that are imported only when they are run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_LATER]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _placeholder(cmd_name) if cmd_name in _LATER else super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in _LATER:
            return args[0], _later(args[0]), args[1:]
        return super().resolve_command(ctx, args)


def _placeholder(name: str) -> Any:
    """Enough of a command for the list of commands."""
    one = typer.Typer(add_completion=False)

    def nothing() -> None: ...

    one.command(name, help=_LATER_HELP[name])(nothing)
    return typer.main.get_command(one)


app = typer.Typer(
    name="supervisor",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if "NO_COLOR" not in os.environ else None,
    help="Fleet-wide health, failover and operators' verdicts for LiveKit voice agents.",
    epilog="Exit codes: 0 good, 1 failed or unhealthy, 2 wrong usage. Every command that looks takes --json.",
)


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Fleet-wide health, failover and operators' verdicts for LiveKit voice agents."""


app.command()(serve.serve)
app.command()(read.status)
app.command()(read.targets)
app.command()(read.probe)
app.add_typer(change.override_app, name="override")
app.add_typer(change.policy_app, name="policy")
app.add_typer(change.workers_app, name="workers")
app.command()(read.sessions)
app.command()(read.faults)
app.command()(read.tail)
app.add_typer(change.token_app, name="token")
app.command()(read.healthcheck)


def run() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        app()
    except CliError as exc:
        complain(str(exc))
        raise SystemExit(exc.code) from None
    except BrokenPipeError:
        # The reader (`| head`) has left; writing again at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
