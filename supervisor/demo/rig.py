"""What demo and drill stand on: embedded Redis, provider stand-ins and a supervisor, on loopback."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from supervisor.demo.processes import Child, Processes, StartFailed, free_port, worker_installed
from supervisor.store.embedded import embedded_redis

FLEET = "demo"
HTTP_TIMEOUT_S = 5.0
# Made up on the spot: the stand-ins take any key that does not begin with "bad".
_KEY = "stand-in-key"


@dataclass(frozen=True, slots=True)
class Rig:
    """A running set. `api` speaks to the supervisor, `stand_ins` to the providers' stand-ins."""

    processes: Processes
    folder: Path
    redis_url: str
    supervisor_url: str
    simulator_url: str
    api: httpx.AsyncClient
    stand_ins: httpx.AsyncClient

    def worker_environment(self, worker: str) -> dict[str, str]:
        """What a worker process needs to join this set."""
        return {
            "REDIS_URL": self.redis_url,
            "WORKER_FLEET": FLEET,
            "WORKER_ID": worker,
            "WORKER_SIMULATOR_URL": self.simulator_url,
            # livekit's turn model waits for a melody that espeak-ng's sentences do not have.
            "WORKER_TURN_DETECTION": "vad",
            "LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE": "0",
        }

    async def set_fault(self, role: str, provider: str, model: str | None, body: dict[str, Any]) -> None:
        """Break (or, with `{"fault": "ok"}`, mend) one stand-in."""
        path = f"/faults/{role}/{provider}" + (f"/{model}" if model else "")
        (await self.stand_ins.put(path, json=body)).raise_for_status()

    async def get(self, path: str) -> Any:
        """One GET from the supervisor, as JSON."""
        answer = await self.api.get(path)
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def rig(
    *, port: int = 0, simulator_port: int = 0, keep: Path | None = None, redis_url: str = ""
) -> AsyncGenerator[Rig]:
    """Start everything but the workers; leaving ends every process that was started. Raises `StartFailed`.

    redis_url: a server that runs already; else the one that REDIS_URL names, else one of our own.
    """
    if not worker_installed():
        raise StartFailed("the worker extra is missing: pip install 'livekit-supervisor[supervisor,worker]'")
    async with AsyncExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livekit-supervisor-")))
        folder.mkdir(parents=True, exist_ok=True)
        port, simulator_port = free_port(port), free_port(simulator_port)
        # A Redis that is already there may be used, e.g. to watch it; a fleet of its own keeps it apart.
        redis_url = (
            redis_url
            or os.environ.get("REDIS_URL")
            or await stack.enter_async_context(embedded_redis(folder / "redis"))
        )
        processes = await stack.enter_async_context(Processes(folder))
        simulator_url = f"http://127.0.0.1:{simulator_port}"
        supervisor_url = f"http://127.0.0.1:{port}"
        api = await stack.enter_async_context(
            httpx.AsyncClient(base_url=supervisor_url, timeout=HTTP_TIMEOUT_S)
        )
        stand_ins = await stack.enter_async_context(
            httpx.AsyncClient(base_url=simulator_url, timeout=HTTP_TIMEOUT_S)
        )
        simulator = await processes.start(
            "stand-ins", ["worker.simulator", "--host", "127.0.0.1", "--port", str(simulator_port)], {}
        )
        await processes.wait_ready(simulator, lambda: _answers(stand_ins, "/healthz"), 40)
        supervisor = await start_supervisor(processes, "supervisor", folder, redis_url, port, simulator_url)
        await processes.wait_ready(supervisor, lambda: _answers(api, "/readyz"), 40)
        yield Rig(processes, folder, redis_url, supervisor_url, simulator_url, api, stand_ins)


async def start_supervisor(
    processes: Processes, name: str, folder: Path, redis_url: str, port: int, simulator_url: str
) -> Child:
    """One `supervisor serve` whose checks look at the stand-ins instead of the real providers."""
    env = {
        "REDIS_URL": redis_url,
        "SUPERVISOR_FLEET": FLEET,
        "SUPERVISOR_HOST": "127.0.0.1",
        "SUPERVISOR_PORT": str(port),
        "SUPERVISOR_STATE_DIR": str(folder / f"state-{name}"),
        "SUPERVISOR_REPLICA": f"{name}-{secrets.token_hex(3)}",
    }
    for provider, path in (("groq", "/groq/openai/v1"), ("openai", "/openai/v1"), ("cartesia", "/cartesia")):
        env[f"{provider.upper()}_API_KEY"] = _KEY
        env[f"SUPERVISOR_{provider.upper()}_BASE_URL"] = simulator_url + path
        env[f"SUPERVISOR_{provider.upper()}_STATUS_URL"] = (
            f"{simulator_url}/status/{provider}/api/v2/summary.json"
        )
    return await processes.start(name, ["supervisor", "serve"], env)


async def _answers(client: httpx.AsyncClient, path: str) -> bool:
    try:
        return (await client.get(path)).status_code == 200
    except httpx.HTTPError:
        return False
