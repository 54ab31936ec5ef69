"""The worker's command line: start, dev, console, check, make-audio, healthcheck."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `worker` command."""
    from worker.cli.app import app

    app(prog_name="worker")


__all__ = ["main"]
