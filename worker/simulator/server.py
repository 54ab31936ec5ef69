"""One server for all stand-ins: providers, control and status pages on one port."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast

import msgspec
from aiohttp import web

from worker.simulator.answers import ContinueMode
from worker.simulator.cartesia_stt import stt_turns_websocket, stt_websocket
from worker.simulator.cartesia_tts import tts_websocket
from worker.simulator.chat import chat_completions
from worker.simulator.control import add_check_routes, add_control_routes
from worker.simulator.faults import parse_fault
from worker.simulator.speech_http import MAX_UPLOAD, audio_speech, audio_transcriptions, tts_bytes
from worker.simulator.stand import BASE_PATHS, STAND, Options, Stand

__all__ = ["BASE_PATHS", "SimulatorServer", "build_app"]


def build_app(stand: Stand) -> web.Application:
    """The application of all stand-ins."""
    app = web.Application(client_max_size=MAX_UPLOAD)
    app[STAND] = stand
    for provider in ("groq", "openai"):
        base = BASE_PATHS[provider]
        app.router.add_post(f"{base}/chat/completions", chat_completions)
        app.router.add_post(f"{base}/audio/speech", audio_speech)
        app.router.add_post(f"{base}/audio/transcriptions", audio_transcriptions)
    base = BASE_PATHS["cartesia"]
    app.router.add_post(f"{base}/tts/bytes", tts_bytes)
    app.router.add_get(f"{base}/tts/websocket", tts_websocket)
    app.router.add_get(f"{base}/stt/turns/websocket", stt_turns_websocket)
    app.router.add_get(f"{base}/stt/websocket", stt_websocket)
    add_check_routes(app, BASE_PATHS)
    add_control_routes(app)
    return app


class SimulatorServer:
    """The stand-ins in this process: ``async with SimulatorServer() as sim: sim.url``.

    ``port`` 0 takes a free one. OSError when the port is taken.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, options: Options | None = None) -> None:
        self._host = host
        self._port = port
        self.stand = Stand(options=options or Options())
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Begins to listen."""
        # Handlers are cancelled when their client leaves: that is how abandoned requests are known.
        runner = web.AppRunner(
            build_app(self.stand), access_log=None, handler_cancellation=True, shutdown_timeout=0.2
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = cast("tuple[str, int]", runner.addresses[0])[1]

    async def aclose(self) -> None:
        """Closes every connection and the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://{self._host}:{self._port}"

    def base_url(self, provider: str) -> str:
        """What the provider's plugin takes as ``base_url``."""
        return self.url + BASE_PATHS[provider]

    def set_fault(
        self,
        role: str,
        provider: str,
        fault: str | Mapping[str, object],
        *,
        model: str = "",
        **fields: object,
    ) -> None:
        """As ``PUT /faults``: ``set_fault("llm", "groq", "status", status=429)``; FaultError when wrong."""
        body = {"fault": fault, **fields} if isinstance(fault, str) else dict(fault)
        self.stand.set_fault(role, provider, model, parse_fault(role, provider, body))

    def clear_faults(
        self, role: str | None = None, provider: str | None = None, model: str | None = None
    ) -> None:
        """As ``DELETE /faults``."""
        self.stand.clear_faults(role, provider, model)

    def set_continue(self, provider: str, model: str, mode: ContinueMode) -> None:
        """As ``PUT /behaviour/llm/…``."""
        self.stand.continue_modes[provider, model] = mode

    def requests(self, **filters: Any) -> list[dict[str, Any]]:
        """As ``GET /requests``: role, provider, model, kind, fault, since (ms), limit."""
        return cast("list[dict[str, Any]]", msgspec.to_builtins(self.stand.ledger.select(**filters)))

    def clear_requests(self) -> None:
        """As ``DELETE /requests``."""
        self.stand.ledger.clear()
