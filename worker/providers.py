"""The plugins a worker uses, made from its settings: STT cartesia → groq, LLM groq → openai, TTS cartesia → groq.

One HTTP client and one aiohttp session serve all of them. Reading the certificates blocks for 120 to 900 ms: a
process does it once, best before it has a call (`warm_up`). The keys stay in the plugins; targets carry their
fingerprints.
"""

from __future__ import annotations

import importlib
import json
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, cast

import aiohttp
import httpx2 as httpx
import openai as openai_sdk
from livekit.agents import APIStatusError, inference, llm, stt, tts, vad
from livekit.plugins import cartesia, groq, openai
from pydantic import SecretStr

from supervisor.wire.targets import make_target
from supervisor.wire.vocabulary import Role
from worker.guard.names import Child, model_of
from worker.link.fingerprint import key_fingerprint
from worker.settings import DUMMY_KEY, WorkerSettings, WrongSetting

P = TypeVar("P")

# More than livekit's own 50: with enough of them a full pool never looks like a slow provider.
_LIMITS = httpx.Limits(max_connections=400, max_keepalive_connections=50, keepalive_expiry=120)
# Bounds for what has no deadline of its own (prewarm); requests carry theirs.
_TIMEOUT = httpx.Timeout(connect=15.0, read=5.0, write=5.0, pool=5.0)


class MendedWebSocket(aiohttp.ClientWebSocketResponse):
    """Cartesia's in-band errors as livekit's plugins should see them.

    The TTS plugin looks at `done` before `type == "error"`, so an error with `done` looks like a good end: it is
    handed on without `done`. The STT plugin only logs errors below 500 and waits for ever: they are raised here.
    """

    async def receive(self, timeout: float | None = None) -> Any:
        """As aiohttp's."""
        message = await super().receive(timeout)
        data: object = message.data
        if message.type is not aiohttp.WSMsgType.TEXT or not isinstance(data, str) or '"error"' not in data:
            return message
        event = _error_event(data)
        if event is None:
            return message
        if "/stt/" in self._response.url.path:
            raise _stt_error(event)
        event.pop("done", None)
        return cast("Any", message)._replace(data=json.dumps(event))


def _error_event(data: str) -> dict[str, Any] | None:
    try:
        event: object = json.loads(data)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    known = cast("dict[str, Any]", event)
    return known if known.get("type") == "error" else None


def _stt_error(event: dict[str, Any]) -> APIStatusError:
    status = event.get("status_code") or event.get("code")
    text = event.get("message") or event.get("error") or event.get("title") or "error"
    return APIStatusError(
        str(text),
        status_code=status if isinstance(status, int) else 500,
        request_id=str(event.get("request_id") or "") or None,
        body=event,
    )


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """The process's own, as httpx makes it."""
    return httpx.create_ssl_context()


def warm_up() -> None:
    """For a process that waits for its first call: what that call's first requests would otherwise wait for."""
    # Packages that import the half of themselves when they are used first.
    for late in ("anyio._backends._asyncio", "openai.resources.chat", "openai.lib.streaming.chat"):
        importlib.import_module(late)
    tls_context()


class Clients:
    """One HTTP client, its SDK clients by base URL, and one aiohttp session."""

    def __init__(self, *, verify: bool = True) -> None:
        """verify: False for plain HTTP alone, which needs no certificates."""
        self._http = httpx.AsyncClient(
            timeout=_TIMEOUT,
            follow_redirects=True,
            limits=_LIMITS,
            verify=tls_context() if verify else False,
        )
        self._sdk: dict[tuple[str, str], openai_sdk.AsyncClient] = {}
        self._session: aiohttp.ClientSession | None = None

    def sdk(self, base_url: str, key: str) -> openai_sdk.AsyncClient:
        """A client of an OpenAI-compatible API; retries are the guard's business."""
        known = self._sdk.get((base_url, key))
        if known is None:
            known = self._sdk[base_url, key] = openai_sdk.AsyncClient(
                api_key=key, base_url=base_url, max_retries=0, http_client=self._http
            )
        return known

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made at the first use, which must be within the event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=120),
                ws_response_class=MendedWebSocket,
            )
        return self._session

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        if self._session is not None:
            await self._session.close()


@dataclass(slots=True)
class Providers:
    """Children per role, best first. notes: lines to say at the start. vad: the bundled one, shared."""

    clients: Clients
    vad: vad.VAD
    stt: list[Child[stt.STT[Any]]] = field(default_factory=list[Child[stt.STT[Any]]])
    llm: list[Child[llm.LLM[Any]]] = field(default_factory=list[Child[llm.LLM[Any]]])
    tts: list[Child[tts.TTS[Any]]] = field(default_factory=list[Child[tts.TTS[Any]]])
    notes: list[str] = field(default_factory=list[str])

    async def aclose(self) -> None:
        """Close plugins, then the clients they share."""
        for child in (*self.stt, *self.llm, *self.tts):
            await child.plugin.aclose()
        await self.clients.aclose()


def build_providers(
    settings: WorkerSettings, *, clients: Clients | None = None, detector: vad.VAD | None = None
) -> Providers:
    """Children for every role. Call it within the event loop. Raises `WrongSetting` when a role would have none.

    clients: to be shared with others, else made here. detector: VAD for the STT without streaming, else the
    bundled one.
    """
    notes = start_notes(settings)
    made = Providers(clients or Clients(), detector or inference.VAD(model="silero"), notes=notes)
    keys = _Keys(settings)
    if keys.cartesia:
        _add_cartesia(made, settings, keys)
    if keys.groq:
        _add_groq(made, settings, keys)
    if keys.openai:
        _add_openai(made, settings, keys)
    return made


class _Keys:
    """The keys in use; against stand-ins a made-up one where none is set."""

    def __init__(self, settings: WorkerSettings) -> None:
        dummy = DUMMY_KEY if settings.simulated else ""
        self.groq = _key(settings.groq_api_key, dummy)
        self.openai = _key(settings.openai_api_key, dummy)
        self.cartesia = _key(settings.cartesia_api_key, dummy)
        self.secret = settings.fleet_secret.get_secret_value() if settings.fleet_secret else None


def _key(secret: SecretStr | None, dummy: str) -> str:
    return secret.get_secret_value() if secret is not None else dummy


def _child(made: list[Child[P]], role: Role, provider: str, plugin: P, key: str, keys: _Keys) -> None:
    target = make_target(role, provider, model_of(plugin))
    made.append(Child(target, plugin, len(made), key_fingerprint(key, keys.secret)))


def _add_cartesia(made: Providers, settings: WorkerSettings, keys: _Keys) -> None:
    key, session = keys.cartesia, made.clients.session
    given: dict[str, Any] = {"voice": settings.cartesia_voice} if settings.cartesia_voice else {}
    _child(
        made.tts,
        Role.TTS,
        "cartesia",
        cartesia.TTS(
            api_key=key,
            model=settings.cartesia_tts_model,
            language=settings.language,
            base_url=settings.cartesia_url,
            http_session=session,
            **given,
        ),
        key,
        keys,
    )
    given = {"model": settings.cartesia_stt_model} if settings.cartesia_stt_model else {}
    _child(
        made.stt,
        Role.STT,
        "cartesia",
        cartesia.STT(
            api_key=key,
            language=settings.language,
            base_url=settings.cartesia_url,
            http_session=session,
            **given,
        ),
        key,
        keys,
    )


def _add_groq(made: Providers, settings: WorkerSettings, keys: _Keys) -> None:
    key = keys.groq
    client = made.clients.sdk(settings.groq_url, key)
    _groq_model(made, settings, settings.groq_llm_model, keys)
    if not keys.openai:
        _groq_model(made, settings, settings.groq_llm_fallback_model, keys)
    whisper = groq.STT(
        model=settings.groq_stt_model,
        api_key=key,
        base_url=settings.groq_url,
        client=client,
        language=settings.language,
    )
    _child(made.stt, Role.STT, "groq", stt.StreamAdapter(stt=whisper, vad=made.vad), key, keys)
    voice = groq.TTS(
        model=settings.groq_tts_model,
        voice=settings.groq_voice,
        api_key=key,
        base_url=settings.groq_url,
        http_session=made.clients.session,
    )
    _child(made.tts, Role.TTS, "groq", voice, key, keys)


def _groq_model(made: Providers, settings: WorkerSettings, model: str, keys: _Keys) -> None:
    plugin = groq.LLM(
        model=model,
        api_key=keys.groq,
        base_url=settings.groq_url,
        client=made.clients.sdk(settings.groq_url, keys.groq),
    )
    _child(made.llm, Role.LLM, "groq", plugin, keys.groq, keys)


def _add_openai(made: Providers, settings: WorkerSettings, keys: _Keys) -> None:
    plugin = openai.LLM(
        model=settings.openai_llm_model,
        api_key=keys.openai,
        base_url=settings.openai_url,
        client=made.clients.sdk(settings.openai_url, keys.openai),
    )
    _child(made.llm, Role.LLM, "openai", plugin, keys.openai, keys)


def start_notes(settings: WorkerSettings) -> list[str]:
    """What to say about the providers at the start. Raises `WrongSetting` when a role would have none."""
    keys = _Keys(settings)
    if not keys.groq and not keys.openai:
        raise WrongSetting(
            "GROQ_API_KEY (or OPENAI_API_KEY) must be set for a language model;"
            " WORKER_SIMULATOR_URL takes stand-ins instead"
        )
    if not keys.groq and not keys.cartesia:
        raise WrongSetting(
            "CARTESIA_API_KEY or GROQ_API_KEY must be set for voice and recognition;"
            " WORKER_SIMULATOR_URL takes stand-ins instead"
        )
    notes: list[str] = []
    if settings.simulated:
        notes.append(f"providers are stand-ins at {settings.simulator_url}")
    if not keys.openai:
        notes.append(
            f"no OPENAI_API_KEY: the fallback model is {settings.groq_llm_fallback_model} at Groq;"
            " when all of Groq fails, no model is left"
        )
    if not keys.groq:
        notes.append("no GROQ_API_KEY: language model, voice and recognition have no fallback")
    if not keys.cartesia:
        notes.append("no CARTESIA_API_KEY: voice and recognition come from Groq alone")
    return notes
