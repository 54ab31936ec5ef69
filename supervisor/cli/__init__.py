"""The operator's command line: `supervisor …`."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `supervisor` command. Exit codes: 0 good, 1 failed or unhealthy, 2 wrong usage."""
    from supervisor.cli.app import run

    run()


__all__ = ["main"]
