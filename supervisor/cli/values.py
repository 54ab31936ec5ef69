"""Values on the command line: durations, numbers, target ids. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

import typer

from supervisor.wire.targets import TargetError, escape_path, parse_target

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def parse_duration(text: str) -> float:
    """`90`, `90s`, `1.5m`, `2h`, `30d` → seconds. Raises `typer.BadParameter`."""
    found = _DURATION.match(text.strip())
    if not found:
        raise typer.BadParameter("write a number with ms, s, m, h or d, e.g. 10m")
    return float(found[1]) * _UNITS[found[2]]


def whole_seconds(text: str) -> int:
    """A duration of at least a second, in whole seconds. Raises `typer.BadParameter`."""
    seconds = parse_duration(text)
    if seconds < 1:
        raise typer.BadParameter("must be at least 1s")
    return round(seconds)


def parse_value(text: str) -> tuple[str, bool | int | float]:
    """`name=value` of a policy. Raises `typer.BadParameter`."""
    name, equals, raw = text.partition("=")
    name, raw = name.strip(), raw.strip()
    if not equals or not name.isidentifier():
        raise typer.BadParameter(f"{text!r} must be name=value, e.g. run_base=6")
    if raw.lower() in {"true", "false"}:
        return name, raw.lower() == "true"
    try:
        return name, int(raw)
    except ValueError:
        pass
    try:
        return name, float(raw)
    except ValueError:
        raise typer.BadParameter(f"{raw!r} is neither a number nor true or false") from None


def target_segment(target: str) -> str:
    """A target id as a path segment. Raises `typer.BadParameter`."""
    try:
        parse_target(target)
    except TargetError as exc:
        raise typer.BadParameter(f"{exc}, e.g. llm:groq:llama-3.3-70b-versatile") from None
    return segment(escape_path(target))


def segment(text: str) -> str:
    """Anything as one path segment."""
    return quote(text, safe=":~")


def scope_path(scope: str) -> str:
    """The path of an override: a target id, or `provider:<name>`. Raises `typer.BadParameter`."""
    kind, _, rest = scope.partition(":")
    if kind == "provider" and rest and ":" not in rest:
        return f"/v1/providers/{segment(rest)}/override"
    return f"/v1/targets/{target_segment(scope)}/override"
