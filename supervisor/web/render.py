"""Templates to answers, each with a Content-Security-Policy and a nonce of its own."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from supervisor import __version__


def age(at_ms: int, now_ms: int) -> str:
    """How long ago, as people say it; a dash for never. Pure."""
    if at_ms <= 0:
        return "-"
    seconds = max(0, now_ms - at_ms) // 1000
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def clock(at_ms: int) -> str:
    """A time of day in UTC. Pure."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "-"


def percent(share: float) -> str:
    """0.153 → 15 %."""
    return f"{share * 100:.0f} %"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # jinja2 types these as the ones it brings itself.
    cast("dict[str, Any]", environment.filters).update({"age": age, "clock": clock, "percent": percent})
    cast("dict[str, Any]", environment.globals)["version"] = __version__
    return environment


def policy(nonce: str) -> str:
    """The Content-Security-Policy of a page: our own files, the one script with this nonce, and nothing else."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def page(template: str, content: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A page."""
    nonce = secrets.token_urlsafe(16)
    html = _environment().get_template(template).render({"nonce": nonce, **content})
    return HTMLResponse(html, status, headers={"Content-Security-Policy": policy(nonce)})
