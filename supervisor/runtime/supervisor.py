"""The supervisor process: Redis, leader or standby, checks, REST and pages in one loop, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn

from supervisor.runtime.board import StatusBoard
from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.engine_port import Engine, real_engine
from supervisor.runtime.logs import configure_logs
from supervisor.runtime.office import Checks, Office
from supervisor.runtime.tasks import end
from supervisor.settings import WrongSetting, stop_with
from supervisor.store.clients import api_client, blocking_client
from supervisor.wire.keys import Keys

if TYPE_CHECKING:
    from supervisor.settings import SupervisorSettings

log = structlog.stdlib.get_logger(__name__)

STOP_S = 3.0
AppFactory = Callable[[SupervisorContext], Any]
Ready = Callable[[str], Awaitable[None] | None]


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: they belong to the process, not to its HTTP part."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def open_context(settings: SupervisorSettings) -> tuple[SupervisorContext, StatusBoard]:
    """The shared parts of one process; nothing is connected yet."""
    board = StatusBoard(settings.replica)
    context = SupervisorContext(
        settings=settings,
        keys=Keys(settings.fleet),
        redis=api_client(settings),
        redis_blocking=blocking_client(settings),
        status=board.status,
    )
    return context, board


@contextlib.asynccontextmanager
async def office(
    settings: SupervisorSettings, *, engine: Engine | None = None, checks: Checks | None = None
) -> AsyncGenerator[SupervisorContext]:
    """A replica without HTTP: leads or stands by for the length of the block (embedding, tests)."""
    context, board = open_context(settings)
    task = asyncio.create_task(Office(context, board, engine or real_engine(), checks).run(), name="office")
    try:
        yield context
    finally:
        await end(task)
        await context.redis.aclose()
        await context.redis_blocking.aclose()


def _listen(settings: SupervisorSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((settings.host, settings.port))
    except OSError as exc:
        sock.close()
        raise WrongSetting(
            f"SUPERVISOR_HOST, SUPERVISOR_PORT: cannot listen on {settings.host} port {settings.port} "
            f"({exc.strerror}); stop what listens there, or name another port"
        ) from None
    sock.setblocking(False)
    return sock


def _default_app(context: SupervisorContext) -> Any:
    module = importlib.import_module("supervisor.api.app")
    return cast("Any", module).create_app(context)


def _default_checks() -> Checks | None:
    try:
        module = importlib.import_module("supervisor.checks.runner")
    except ModuleNotFoundError:
        return None
    return cast("Checks", cast("Any", module).run)


async def run(
    settings: SupervisorSettings,
    *,
    ready: Ready | None = None,
    stop: asyncio.Event | None = None,
    app_factory: AppFactory = _default_app,
    engine: Engine | None = None,
) -> None:
    """Run until SIGTERM, SIGINT or `stop`; then give the lease back and end.

    ready: called with the URL once HTTP answers, which may be before Redis does. Raises `WrongSetting` when it
    cannot listen.
    """
    stopping = stop or asyncio.Event()
    sock = _listen(settings)
    host, port = sock.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    with _signals(stopping):
        checks = _default_checks() if settings.checks else None
        async with office(settings, engine=engine, checks=checks) as context:
            app = app_factory(context)
            config = uvicorn.Config(
                app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=2,
                timeout_keep_alive=30, ws="none",
            )  # fmt: skip
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
            waiting = asyncio.create_task(_ready(server, ready, url))
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            log.info("stops", action="supervisor.stop")
            # Streams have no end of their own: without this the server waits for them as long as it may.
            end_streams = getattr(getattr(app, "state", None), "end_streams", None)
            if end_streams is not None:
                await end_streams()
            server.should_exit = True
            await end(waiting)
            await end(stopped)
            _, late = await asyncio.wait({serving}, timeout=STOP_S)
            if late:
                serving.cancel()
            done = await asyncio.gather(serving, return_exceptions=True)
            if isinstance(done[0], Exception):
                raise done[0]


async def _ready(server: _Server, ready: Ready | None, url: str) -> None:
    await server.up.wait()
    log.info("listens", action="supervisor.start", url=url)
    if ready is not None:
        answer = ready(url)
        if answer is not None:
            await answer


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Generator[None]:
    """SIGTERM and SIGINT end the process in order; where the loop has no signals, the default stays."""
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has none, and a thread that is not the main one may not take them.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stopping.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


def _settle(_: str) -> None:
    """What was imported stays: looking through it in vain would hold up verdicts for some 50 ms now and then."""
    gc.collect()
    gc.freeze()


def serve_forever(settings: SupervisorSettings) -> None:
    """What `supervisor serve` does: logs, then `run`. Exits with 2 and one line when it cannot listen."""
    configure_logs(settings)
    try:
        asyncio.run(run(settings, ready=_settle))
    except WrongSetting as exc:
        stop_with(str(exc))
