"""`supervisor demo` and `supervisor drill` on the command line."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from supervisor.demo.demo import DemoPlan, run_demo
from supervisor.demo.drill import SCENARIOS, VARIANTS, DrillPlan, run_drill
from supervisor.demo.processes import StartFailed
from supervisor.demo.view import Picture, render

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_err = Console(stderr=True)


def parse_duration(text: str) -> float:
    """`90`, `90s`, `1.5m`, `1h` → seconds. Raises `typer.BadParameter`."""
    found = _DURATION.match(text.strip())
    if not found:
        raise typer.BadParameter("write a number with ms, s, m or h, e.g. 60s")
    return float(found[1]) * _UNITS[found[2]]


def _fail(line: str) -> NoReturn:
    _err.print(f"supervisor: {line}", style="red", highlight=False, markup=False)
    raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    try:
        return asyncio.run(work)
    except StartFailed as exc:
        _fail(str(exc))
    except KeyboardInterrupt:
        _fail("interrupted; everything has ended")


def demo(
    run_for: Annotated[
        str, typer.Option("--for", help="end by itself after this long, e.g. 60s; default: at Ctrl-C")
    ] = "",
    callers: Annotated[int, typer.Option(min=1, max=64)] = 8,
    workers: Annotated[int, typer.Option(min=1, max=16)] = 2,
    port: Annotated[int, typer.Option(help="the supervisor's port; 0: any free one")] = 8080,
    simulator_port: Annotated[int, typer.Option(help="the stand-ins' port; 0: any free one")] = 9100,
    as_json: Annotated[bool, typer.Option("--json", help="no table; one JSON object at the end")] = False,
) -> None:
    """Run it all on this machine: Redis, provider stand-ins, supervisor, workers, and callers who speak and listen.

    Needs no key and no Docker. Example: supervisor demo --for 60s --json
    """
    plan = DemoPlan(workers, callers, port, simulator_port, parse_duration(run_for) if run_for else None)
    result = _run(_demo(plan, as_json))
    if as_json:
        typer.echo(json.dumps(result))


async def _demo(plan: DemoPlan, as_json: bool) -> dict[str, Any]:
    stop = asyncio.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)

    def say(line: str) -> None:
        _err.print(line, highlight=False, markup=False)

    if as_json or not sys.stdout.isatty():
        return await run_demo(plan, stop, lambda _: None, say)
    with Live(console=Console(), auto_refresh=False, screen=False) as live:

        def show(picture: Picture) -> None:
            live.update(render(picture), refresh=True)

        return await run_demo(plan, stop, show, say)


def drill(
    scenario: Annotated[str, typer.Option(help=", ".join(SCENARIOS))] = "status-503",
    sessions: Annotated[int, typer.Option(min=4, max=400)] = 40,
    variant: Annotated[
        list[str] | None, typer.Option(help="only these of plain, upstream, guarded (repeat it)")
    ] = None,
    outage: Annotated[str, typer.Option(help="how long the primary is broken")] = "30s",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Break the primary LLM under load and measure three variants side by side: plain, upstream's adapter, guarded.

    Takes about two minutes a variant. Example: supervisor drill --scenario hang --sessions 40 --json
    """
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"choose one of {', '.join(SCENARIOS)}", param_hint="--scenario")
    wanted = tuple(variant or VARIANTS)
    if unknown := [v for v in wanted if v not in VARIANTS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(VARIANTS)}", param_hint="--variant")
    plan = DrillPlan(scenario, sessions, wanted, outage_s=parse_duration(outage))
    result = _run(run_drill(plan, lambda line: _err.print(line, highlight=False, markup=False)))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        Console().print(drill_table(result))


def drill_table(result: dict[str, Any]) -> Table:
    """The drill's result for people."""
    table = Table(
        title=f"{result['scenario']}, {result['sessions']} sessions, during the outage", title_justify="left"
    )
    for name in (
        "variant",
        "turns",
        "silent",
        "cut",
        "wait p50",
        "p95",
        "p99",
        "dead requests",
        "closed",
        "verdict",
        "recovery",
    ):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for row in result["variants"]:
        wait = row["extra_wait_s"]
        table.add_row(
            row["variant"], *(str(row[k]) for k in ("turns", "silent", "cut")),
            *(_seconds(wait[q]) for q in ("p50", "p95", "p99")),
            *(str(row[k]) for k in ("dead_requests", "closed")),
            *(_seconds(row[k]) for k in ("verdict_s", "recovery_s")),
        )  # fmt: skip
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
