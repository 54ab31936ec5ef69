"""`--agent pkg.module:entrypoint`: finding the user's own agent, with an error a person can act on."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from livekit.agents import AgentServer, JobContext, JobProcess, JobRequest

# livekit takes seconds to import: the command line says what is wrong with a setting before that.
Entrypoint = Callable[["JobContext"], Awaitable[None]]
Setup = Callable[["JobProcess"], Any]
OnRequest = Callable[["JobRequest"], Awaitable[Any]]

SHIPPED = "worker.runtime.shipped_agent:entrypoint"


class AgentNotFound(ValueError):
    """`--agent` does not name an async function `entrypoint(ctx)` or a livekit AgentServer that has one."""


@dataclass(frozen=True, slots=True)
class UserAgent:
    """What a job process runs: the entrypoint, and what to do once when the process starts.

    agent_name, on_request (in the container's process: take the call or not) and on_session_end: what an AgentServer
    of the user's was given; the limits and addresses of that one are not used, WORKER_* settings say those.
    """

    ref: str
    entrypoint: Entrypoint
    setup: Setup | None = None
    agent_name: str = ""
    on_request: OnRequest | None = None
    on_session_end: Entrypoint | None = None


def load_agent(ref: str) -> UserAgent:
    """Import `pkg.module:name`. Raises `AgentNotFound` with the remedy; the user's own import errors pass."""
    module_name, _, name = ref.partition(":")
    if not module_name or not name:
        raise AgentNotFound(f"--agent {ref!r}: write it as pkg.module:server or pkg.module:entrypoint")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` does, so that an agent beside the shell's folder is found
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name and (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise AgentNotFound(
                f"--agent {ref!r}: there is no module {exc.name!r}; start from the folder that holds it"
            ) from None
        raise
    found = getattr(module, name, None)
    if found is None:
        raise AgentNotFound(f"--agent {ref!r}: module {module_name!r} has no {name!r}")
    from livekit.agents import AgentServer  # the agent's own module has imported it by now

    if isinstance(found, AgentServer):
        return _of_server(ref, found)
    if not inspect.iscoroutinefunction(found):
        raise AgentNotFound(
            f"--agent {ref!r}: {name!r} must be an async function that takes a JobContext, or an AgentServer"
        )
    return UserAgent(ref, cast("Entrypoint", found), getattr(module, "prewarm", None))


def _of_server(ref: str, server: AgentServer) -> UserAgent:
    given = cast("Any", server)  # no public accessors in 1.8.9
    if given._entrypoint_fnc is None:
        raise AgentNotFound(f"--agent {ref!r}: the AgentServer has no @rtc_session function")
    return UserAgent(
        ref,
        given._entrypoint_fnc,
        server.setup_fnc,
        given._agent_name,
        given._request_fnc,
        given._session_end_fnc,
    )
