"""The demo's live table: what the fleet looks like, as rich renderables. Plain values in, nothing fetched here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "healthy": "green", "degraded": "yellow", "limited": "yellow", "unhealthy": "red", "probing": "magenta",
    "ramping": "cyan",
}  # fmt: skip


@dataclass(slots=True)
class Picture:
    """Everything the table shows at one moment."""

    ready_s: float | None = None
    targets: Sequence[Mapping[str, Any]] = ()
    workers: Sequence[Mapping[str, Any]] = ()
    callers: Mapping[str, str] = field(default_factory=dict[str, str])  # caller → talking, waiting, listening
    turns: int = 0
    silent: int = 0
    apologies: int = 0
    dead_air_p50_s: float | None = None
    dead_air_max_s: float | None = None
    verdicts: Sequence[str] = ()
    supervisor_url: str = ""
    simulator_url: str = ""
    note: str = ""


def render(picture: Picture) -> Group:
    """The whole screen."""
    return Group(_targets(picture), _calls(picture), _verdicts(picture), _help(picture))


def summary_of(result: Mapping[str, Any]) -> str:
    """A demo's end in one line; `result` as `run_demo` gives it."""
    callers = result["callers"]
    turns, silent, air = callers["turns"], callers["silent"], callers["dead_air_s"]
    waits = (
        ""
        if air["p50"] is None
        else f"; wait for an answer: median {air['p50']:.2f} s, longest {air['max']:.2f} s"
    )
    return f"{turns - silent} of {turns} turns answered, {silent} silent{waits}; {len(result['verdicts'])} verdicts"


def since(verdicts: Sequence[str], last: str) -> Sequence[str]:
    """Those after `last`; all of them when it is not there (any more)."""
    return verdicts[verdicts.index(last) + 1 :] if last in verdicts else verdicts


def _targets(picture: Picture) -> Table:
    table = Table(title="targets", expand=True, title_justify="left", pad_edge=False)
    for name in ("target", "state", "admit", "10 s", "faults", "why"):
        table.add_column(name, overflow="fold", ratio=3 if name == "why" else None)
    for item in picture.targets:
        state = str(item["override"] or item["state"])
        table.add_row(
            str(item["id"]),
            Text(state, style=_COLOURS.get(state, "bold")),
            f"{float(item['admit']):.0%}",
            str(item["attempts"]),
            str(item["faults"]),
            str(item["reason"]),
        )
    return table


def _calls(picture: Picture) -> Panel:
    doing = ", ".join(f"{who} {what}" for who, what in sorted(picture.callers.items())) or "none yet"
    air = (
        "-"
        if picture.dead_air_p50_s is None
        else f"{picture.dead_air_p50_s:.2f} s, longest {picture.dead_air_max_s or 0:.2f} s"
    )
    revisions = ", ".join(f"{w['id']} r{w['revision']}" for w in picture.workers) or "none yet"
    body = (
        f"workers   {revisions}\n"
        f"callers   {doing}\n"
        f"answered  {picture.turns - picture.silent} of {picture.turns} turns, {picture.silent} silent; "
        f"wait for an answer: median {air}"
    )
    return Panel(body, title="calls", title_align="left")


def _verdicts(picture: Picture) -> Panel:
    return Panel("\n".join(picture.verdicts[-6:]) or "none yet", title="last verdicts", title_align="left")


def _help(picture: Picture) -> Panel:
    s = picture.simulator_url
    body = (
        f"dashboard  {picture.supervisor_url}\n"
        f'break it   curl -X PUT {s}/faults/llm/groq -d \'{{"fault":"hang"}}\'   (or status, slow, cut, silent…)\n'
        f'mend it    curl -X PUT {s}/faults/llm/groq -d \'{{"fault":"ok"}}\'\n'
        f"end it     Ctrl-C"
    )
    return Panel(body + (f"\n{picture.note}" if picture.note else ""), title="try", title_align="left")
