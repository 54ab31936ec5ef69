"""`supervisor serve`: the process itself."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from supervisor.cli.errors import CliError


def serve(
    host: Annotated[
        str, typer.Option(help="address to listen on (SUPERVISOR_HOST)", show_default=False)
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="port; 0: any free one (SUPERVISOR_PORT)", show_default=False),
    ] = None,
    fleet: Annotated[str, typer.Option(help="which fleet (SUPERVISOR_FLEET)", show_default=False)] = "",
) -> None:
    """Run a supervisor: leader or standby, REST, pages, metrics. Settings come from the environment.

    Example: REDIS_URL=redis://127.0.0.1:6379/0 supervisor serve --port 8080
    """
    if importlib.util.find_spec("fastapi") is None:
        raise CliError("`supervisor serve` needs the extra: pip install 'livekit-supervisor[supervisor]'")
    from supervisor.settings import load_settings

    given: dict[str, object] = {}
    if host:
        given["host"] = host
    if port is not None:
        given["port"] = port
    if fleet:
        given["fleet"] = fleet
    settings = load_settings(**given)
    from supervisor.runtime.supervisor import (
        serve_forever,
    )  # a second of imports: wrong settings are said before

    serve_forever(settings)
