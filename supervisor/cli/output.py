"""What commands print: tables for people, JSON for programs. Colours only where wanted (NO_COLOR is obeyed)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Without a terminal there is no width to keep to, and cut lines help nobody.
WIDE = 200
STATE_STYLES = {
    "healthy": "green",
    "degraded": "yellow",
    "limited": "yellow",
    "ramping": "cyan",
    "probing": "magenta",
    "unhealthy": "bold red",
    "forced_unhealthy": "bold red",
    "forced_healthy": "bold green",
    "observe_only": "blue",
}


def console() -> Console:
    """The console of standard output."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def printable(text: str) -> str:
    """Without control characters: what a provider or a worker said must not move the reader's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def say(line: str) -> None:
    """One line to standard output."""
    console().print(printable(line), markup=False, highlight=False, soft_wrap=True)


def complain(line: str) -> None:
    """One line to standard error."""
    Console(stderr=True).print(
        f"supervisor: {printable(line)}", style="red", markup=False, highlight=False, soft_wrap=True
    )


def print_json(data: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def print_line_json(data: object) -> None:
    """One JSON document on one line, at once."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def percent(share: float) -> str:
    """0.153 → 15 %."""
    return f"{share * 100:.0f} %"


def ago(at: str | None) -> str:
    """An RFC 3339 time as a short age, e.g. `3 m`; a dash without one."""
    if not at:
        return "-"
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()
    except ValueError:
        return at
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def clock(at: str | None) -> str:
    """An RFC 3339 time as local time of day."""
    if not at:
        return "-"
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return at


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], empty: str) -> None:
    """A table, or the line `empty` when there is nothing to show."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        # Ids are what one copies: they are folded rather than cut.
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        say(empty)


def counted(number: int, thing: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def plain(value: object) -> str:
    """A JSON value for people: no brackets, quotes or None."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in cast("dict[str, object]", value).items())
    if isinstance(value, list):
        return ", ".join(plain(inner) for inner in cast("list[object]", value))
    return str(value)


def print_members(found: Mapping[str, object]) -> None:
    """One thing, a line for each of its members."""
    print_table(("", ""), ((name, plain(value)) for name, value in sorted(found.items())), "")
