"""`python -m tests.simulation [--write]`: print the table; with --write, into docs/engine.md as well."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.simulation.scenarios import SCENARIOS, table
from tests.support.docs import replace_part

DOC = Path(__file__).resolve().parents[2] / "docs" / "engine.md"


def main(args: list[str]) -> None:
    rows: list[str] = []
    for scenario in SCENARIOS:
        head, rule, row = table([scenario])
        new = [row] if rows else [head, rule, row]
        print("\n".join(new), flush=True)
        rows += new
    if "--write" in args:
        text = DOC.read_text(encoding="utf-8")
        DOC.write_text(replace_part(text, "simulation", "\n".join(rows)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
