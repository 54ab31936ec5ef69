"""`supervisor demo` and `supervisor drill` on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from supervisor.cli.output import console
from supervisor.cli.values import parse_duration
from supervisor.demo.audio_drill import FAULTS, ROLES, AudioPlan, cases, run_audio_drill
from supervisor.demo.audio_stats import late_in_words
from supervisor.demo.demo import DemoPlan, run_demo
from supervisor.demo.drill import SCENARIOS, VARIANTS, DrillPlan, run_drill
from supervisor.demo.processes import StartFailed
from supervisor.demo.report import render_report
from supervisor.demo.view import Picture, render, since, summary_of

_err = Console(stderr=True)
T = TypeVar("T")


def _fail(line: str) -> NoReturn:
    _err.print(f"supervisor: {line}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(_until_told(work))
    except StartFailed as exc:
        _fail(str(exc))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _fail("interrupted; everything has ended")


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """SIGTERM ends it as Ctrl-C does: whoever sends it (`timeout`, CI) knows nothing of our children."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - within a coroutine

    def told() -> None:
        if not task.cancelling():  # a second one must not break off the cleaning up
            task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)
    return await work


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
    typer.echo(json.dumps(result) if as_json else summary_of(result))


async def _demo(plan: DemoPlan, as_json: bool) -> dict[str, Any]:
    stop = asyncio.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)

    if as_json:
        return await run_demo(plan, stop, lambda _: None, _say)
    if not sys.stdout.isatty():
        return await run_demo(plan, stop, _verdicts_as_lines(), _say)
    with Live(console=Console(), auto_refresh=False, screen=False) as live:

        def show(picture: Picture) -> None:
            live.update(render(picture), refresh=True)

        return await run_demo(plan, stop, show, _say)


def _verdicts_as_lines() -> Callable[[Picture], None]:
    """For a log file or a pipe: what the table would show under "last verdicts", once each."""
    last = ""

    def show(picture: Picture) -> None:
        nonlocal last
        for verdict in since(picture.verdicts, last):
            _say(verdict)
            last = verdict

    return show


def drill(
    scenario: Annotated[
        str, typer.Option(help=f"without --audio: {', '.join(SCENARIOS)}", show_default="status-503")
    ] = "",
    sessions: Annotated[
        int | None,
        typer.Option(min=4, max=400, help="text sessions (40), or with --audio calls in a wave (16)"),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="only these of plain, upstream, guarded (repeat it)")
    ] = None,
    outage: Annotated[str, typer.Option(help="how long the service is broken; 30s, with --audio 20s")] = "",
    audio: Annotated[bool, typer.Option("--audio", help="real calls: measure what callers hear")] = False,
    role: Annotated[list[str] | None, typer.Option(help="with --audio: only these of llm, tts, stt")] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help=f"with --audio: only these of {', '.join(FAULTS)}")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="with --audio: repeat each case so often")] = 1,
    report: Annotated[
        Path | None, typer.Option(help="with --audio: write a page with a picture of every call")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Break a service under load and measure three variants side by side: plain, upstream's adapter, guarded.

    Text sessions and the primary LLM, about two minutes a variant; or, with --audio, real calls, about a minute a
    variant and case. Examples: supervisor drill --scenario hang --sessions 40 --json;
    supervisor drill --audio --role tts --fault cut --report drill.html
    """
    _choices("--variant", variant, VARIANTS)
    variants = tuple(variant or VARIANTS)
    if outage and parse_duration(outage) < 1:
        raise typer.BadParameter("must be at least 1s", param_hint="--outage")
    if audio:
        if scenario:
            raise typer.BadParameter(
                "is of the text drill; --audio takes --role and --fault", param_hint="--scenario"
            )
        _choices("--role", role, ROLES)
        _choices("--fault", fault, FAULTS)
        chosen = cases(tuple(role or ROLES), tuple(fault or FAULTS))
        if not chosen:
            raise typer.BadParameter(
                "no role has that fault (an LLM has no silence, a recogniser no empty audio)"
            )
        plan = AudioPlan(chosen, variants, sessions or 16, rounds, outage_s=parse_duration(outage or "20s"))
        _audio(plan, report, as_json)
        return
    for option, given in {
        "--role": role,
        "--fault": fault,
        "--rounds": rounds > 1,
        "--report": report,
    }.items():
        if given:
            raise typer.BadParameter("needs --audio", param_hint=option)
    scenario = scenario or "status-503"
    _choices("--scenario", [scenario], SCENARIOS)
    text_plan = DrillPlan(scenario, sessions or 40, variants, outage_s=parse_duration(outage or "30s"))
    result = _run(run_drill(text_plan, _say))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        console().print(drill_table(result))


def _say(line: str) -> None:
    _err.print(line, highlight=False, markup=False, soft_wrap=True)


def _choices(option: str, given: Iterable[str] | None, known: Iterable[str]) -> None:
    for name in given or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint=option)


def _audio(plan: AudioPlan, report: Path | None, as_json: bool) -> None:
    if report is not None:
        _writable(report)
    result = _run(run_audio_drill(plan, _say))
    if as_json:
        typer.echo(json.dumps({"healthy": result.healthy, "cases": result.rows}))
    else:
        console().print(audio_table(result.rows))
    if report is not None:
        try:
            report.write_text(render_report(result.rows, result.healthy, result.timelines), encoding="utf-8")
        except OSError as exc:
            _fail(f"{report} cannot be written ({exc.strerror})")
        _say(f"report: {report}")


def _writable(report: Path) -> None:
    """A drill takes long: where its report cannot be written is said before it."""
    if not report.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {report.parent}", param_hint="--report")
    if report.is_dir():
        raise typer.BadParameter(
            f"{report} is a folder; name a file, e.g. {report / 'drill.html'}", param_hint="--report"
        )
    if not os.access(report if report.exists() else report.parent, os.W_OK):
        raise typer.BadParameter(
            f"{report} cannot be written; look at its permissions", param_hint="--report"
        )


def audio_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The audio drill's result for people, in 120 columns; in fewer its cells are folded. Waits are seconds.

    late fault: turns whose recogniser failed within 1.2 s before the end of speech, which dead air leaves out.
    """
    table = Table(
        title="what callers heard during the outage", title_justify="left", box=box.SIMPLE_HEAD, padding=0,
        show_edge=False,
    )  # fmt: skip
    names = ("role", "fault", "variant")
    counts = ("calls", "turns", "answered", "apologies", "misheard", "silent", "closed")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in (*counts, "words\nlost/twice", "dead air, s\np50/p95/max", "late fault\np95/max"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        air = (row["dead_air_s"][key] for key in ("p50", "p95", "max"))
        table.add_row(
            *(str(row[key]) for key in (*names, *counts)),
            f"{row['words_lost']}/{row['words_twice']}",
            "/".join("-" if value is None else f"{value:.2f}" for value in air),
            late_in_words(row),
        )
    return table


def drill_table(result: dict[str, Any]) -> Table:
    """The drill's result for people, in 80 columns."""
    table = Table(
        title=f"{result['scenario']}, {result['sessions']} sessions, during the outage", title_justify="left",
        box=box.SIMPLE_HEAD, padding=0, show_edge=False,
    )  # fmt: skip
    names = (
        "turns",
        "silent",
        "cut",
        "wait\np50",
        "p95",
        "p99",
        "dead\nrequests",
        "closed",
        "verdict",
        "recovery",
    )
    table.add_column("variant")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
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
