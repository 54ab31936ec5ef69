"""`python -m tests.compose`: the containers of docker-compose.yml, put through what they must stand.

Needs a Docker engine and compose 2.24; without them it says so and ends well. Real callers speak and listen in the
workers' job processes, so no LiveKit server is needed. `--no-build` takes the images that are there, `--keep` leaves
the containers for a look. Ends with exit code 1 at the first thing that is not so.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable

import httpx

from tests.compose import checks, outages
from tests.compose.stack import Stack, no_docker

STEPS: tuple[tuple[str, Callable[[Stack], str]], ...] = (
    ("images", checks.images),
    ("wrong settings", checks.wrong_settings),
    ("real keys", checks.real_keys),
    ("LiveKit away", checks.livekit_away),
    ("up, healthy", checks.up),
    ("hardened", checks.hardened),
    ("admin token", checks.admin_token),
    ("two workers report and apply", checks.two_workers),
    ("callers answered", checks.callers),
    ("a language model hangs", outages.hang),
    ("five workers report and apply", outages.five_workers),
    ("Redis killed", outages.redis_killed),
    ("Redis frozen", outages.redis_frozen),
    ("supervisor restarted", outages.supervisor_restarted),
)


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Exit code: 0 all is well or there is no Docker, 1 something is not so."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="take the images that are there")
    parser.add_argument(
        "--keep", action="store_true", help="leave the containers running, and say how to end them"
    )
    wanted = parser.parse_args()
    if reason := no_docker():
        _say(f"skipped: {reason}")
        return 0
    stack, well = Stack(), False
    try:
        if not wanted.no_build:
            _step("build", checks.build, stack)
        for name, step in STEPS:
            _step(name, step, stack)
        well = True
    except (AssertionError, OSError, httpx.HTTPError, subprocess.TimeoutExpired) as exc:
        _say(f"FAIL {type(exc).__name__}: {exc}")
        log = stack.try_compose("logs", "--no-color", "--tail", "300").stdout.splitlines()
        # A busy machine makes livekit say these many times a second.
        _say(
            "\n".join(
                [line for line in log if not re.search("event loop blocked|slower than realtime", line)][-60:]
            )
        )
    finally:
        if wanted.keep:
            _say(f"left running: docker compose -p {stack.project} down --volumes")
        else:
            well &= _removed(stack)
    return 0 if well else 1


def _removed(stack: Stack) -> bool:
    stack.remove()
    left = stack.left()
    _say(f"FAIL left behind: {', '.join(left)}" if left else "ok   down -v leaves nothing")
    return not left


def _step(name: str, step: Callable[[Stack], str], stack: Stack) -> None:
    begun = time.monotonic()
    found = step(stack)
    _say(f"ok   {name}: {found} ({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
