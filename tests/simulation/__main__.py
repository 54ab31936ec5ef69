"""Plays the scenarios and prints the table that docs/engine.md keeps."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import structlog

from tests.simulation.scenarios import SCENARIOS, table
from tests.support.docs import replace_part

DOC = Path(__file__).resolve().parents[2] / "docs" / "engine.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--only",
        metavar="TEXT",
        action="append",
        help="only scenarios whose name contains TEXT, without regard to case (may be given several times)",
    )
    parser.add_argument(
        "--seeds", metavar="N", type=int, help="play each scenario with the seeds 1 to N instead of its own"
    )
    parser.add_argument("--list", action="store_true", help="print the scenarios' names and play nothing")
    parser.add_argument(
        "--write", action="store_true", help="write the table into docs/engine.md (all scenarios, own seeds)"
    )
    args = parser.parse_args()
    if args.write and (args.only or args.seeds):
        parser.error("--write goes with all scenarios and their own seeds")
    only = [text.lower() for text in args.only or [""]]
    chosen = [s for s in SCENARIOS if any(text in s.name.lower() for text in only)]
    if args.list:
        print("\n".join(s.name for s in chosen))
        return
    # Local breakers tell their log; here nobody reads it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rows: list[str] = []
    for scenario in chosen:
        if args.seeds:
            scenario = replace(
                scenario, seeds=tuple(range(1, args.seeds + 1))
            )  # the same one, played otherwise
        head, rule, row = table([scenario])
        new = [row] if rows else [head, rule, row]
        print("\n".join(new), flush=True)
        rows += new
    if args.write:
        text = DOC.read_text(encoding="utf-8")
        DOC.write_text(replace_part(text, "simulation", "\n".join(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
