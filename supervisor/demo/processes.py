"""Real child processes that never outlive us: started, waited for, and ended in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STOP_GRACE_S = 8.0
_PR_SET_PDEATHSIG = 1
# Names whose values must not leak from the operator's shell into a rehearsal: it works with stand-ins only.
_PRIVATE_PREFIXES = (
    "GROQ_",
    "CARTESIA_",
    "OPENAI_",
    "DEEPGRAM_",
    "LIVEKIT_",
    "SUPERVISOR_",
    "WORKER_",
    "REDIS_",
)


class StartFailed(RuntimeError):
    """A child process did not come up; the message says which, and the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: asyncio.subprocess.Process
    log: Path

    def tail(self, lines: int = 12) -> str:
        """The end of what the process printed."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


class Processes:
    """An async context manager that owns child processes; leaving it ends them all."""

    def __init__(self, log_dir: Path) -> None:
        self._dir = log_dir
        self._children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_all()

    async def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start `python -m <argv…>` with a clean environment plus `env`; its output goes to a file of its own."""
        log = self._dir / f"{name}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *argv,
                env=clean_environment() | dict(env), stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        child = Child(name, process, log)
        self._children.append(child)
        return child

    async def wait_ready(self, child: Child, ready: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Wait until `ready()` is true. Raises `StartFailed` when the process ends first or time runs out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while child.process.returncode is None:
                    if await ready():
                        return
                    await asyncio.sleep(0.1)
        how = "ended" if child.process.returncode is not None else f"was not ready after {timeout_s:.0f} s"
        raise StartFailed(f"{child.name} {how}:\n{child.tail()}")

    def dead(self) -> Child | None:
        """A child that ended by itself, or None."""
        return next((c for c in self._children if c.process.returncode is not None), None)

    async def stop(self, child: Child) -> None:
        """SIGTERM, then SIGKILL for the whole process group after a grace time."""
        if child in self._children:
            self._children.remove(child)
        process = child.process
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
        # The group too: a worker's job processes live in it, and a crash may have orphaned them.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def stop_all(self) -> None:
        """End everything, newest first; workers together, since each may take a while to let its calls go."""
        children = list(reversed(self._children))
        workers = [c for c in children if c.name.startswith("worker")]
        await asyncio.gather(*(self.stop(c) for c in workers))
        for child in children:
            if child not in workers:
                await self.stop(child)


def clean_environment() -> dict[str, str]:
    """Our environment without provider keys and settings of the real fleet."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE_PREFIXES)} | {
        "PYTHONUNBUFFERED": "1"
    }


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` when it is free; 0 gives any free one. Raises `StartFailed` with the remedy when it is taken."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, wanted))
        except OSError as exc:
            raise StartFailed(
                f"port {wanted} is in use; stop what listens there, or choose another (0: any free one)"
            ) from exc
        return int(sock.getsockname()[1])


def worker_installed() -> bool:
    """Whether the worker extra is there, without importing any of it."""
    return all(importlib.util.find_spec(name) is not None for name in ("worker", "livekit.agents", "aiohttp"))


def _die_with_parent() -> None:  # pragma: no cover - runs between fork and exec
    """On Linux, a child gets SIGTERM when we die however we die; elsewhere Ctrl-C and exit handlers must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
