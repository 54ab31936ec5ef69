"""docs/rest.md names every route and every metric, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from supervisor.cli.app import app
from tests.support.api_rig import TARGET, rig

TEXT = (Path(__file__).parents[2] / "docs" / "rest.md").read_text()
PREFIX = "livekit_supervisor_"


async def test_the_document_has_every_route_and_every_metric(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet) as face:
        await face.worker("w1")
        await face.shown(TARGET)
        paths = set(face.app.openapi()["paths"])
        text = (await face.http.get("/metrics")).text
    in_text = {path.split("?")[0] for path in re.findall(r"/(?:v1/[^`\s·?]+|healthz|readyz|metrics)", TEXT)}
    assert paths - in_text == set()
    assert {path for path in in_text if ":" not in path} - paths == set()
    section = TEXT.split("## Metrics")[1].split("Worth an alarm")[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE))
    written = {
        name.removesuffix("_total") if "target_" not in row else "target_" + name
        for row, names in rows.items()
        for name in re.findall(r"`([a-z0-9_]+)`", names)
    }
    made = {
        family.name.removeprefix(PREFIX)
        for family in text_string_to_metric_families(text)
        if family.name.startswith(PREFIX)
    }
    assert {name for name in made if not name.endswith("_created")} == written


def test_the_document_has_every_command() -> None:
    section = TEXT.split("## Command line")[1]
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    names |= {str(group.name) for group in app.registered_groups} | {"demo", "drill"}
    for name in names:
        assert re.search(rf"`{name}[ `]", section), name
