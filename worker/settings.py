"""The worker's settings: environment variables with the prefix `WORKER_`, and the usual shared names.

Rule: a secret is a `SecretStr` and its value is in no message, whatever is wrong with it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Iterable
from typing import NoReturn, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from supervisor.wire.keys import check_fleet, check_worker
from supervisor.wire.spelling import misspelt

PREFIX = "WORKER_"
GROQ_URL = "https://api.groq.com/openai/v1"
OPENAI_URL = "https://api.openai.com/v1"
CARTESIA_URL = "https://api.cartesia.ai"
DUMMY_KEY = "simulator"

_REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})
_LOG_FORMATS = frozenset({"auto", "console", "json"})
_LOG_LEVELS = frozenset({"debug", "info", "warning", "error"})


class WrongSetting(ValueError):
    """A setting cannot be used. The text is one line that names the variable and says what to change."""


def _worker_id() -> str:
    """Unique per container start: two workers on one host must never take each other for themselves."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._")[:64] or "worker"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class WorkerSettings(BaseSettings):
    """Everything that can be set from outside. Durations say their unit in the name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, populate_by_name=True, frozen=True
    )

    fleet: str = Field("default", description="Which fleet; keeps staging and production apart.")
    id: str = Field(default_factory=_worker_id, description="This container's name; unique in the fleet.")
    redis_url: SecretStr | None = Field(
        None, validation_alias="REDIS_URL", description="Without it the worker guards its calls on its own."
    )
    fleet_secret: SecretStr | None = Field(
        None, description="Salts the fingerprints of keys; the same for the whole fleet, or unset everywhere."
    )
    link_socket: str = Field("", description="Unix socket of the container's link (set for job processes).")

    livekit_url: str = Field("", validation_alias="LIVEKIT_URL")
    livekit_api_key: str = Field("", validation_alias="LIVEKIT_API_KEY")
    livekit_api_secret: SecretStr | None = Field(None, validation_alias="LIVEKIT_API_SECRET")
    agent_name: str = Field("", description="Name for explicit dispatch; empty: every new room.")
    agent: str = Field(
        "",
        description="Your agent: `pkg.module:server` (AgentServer) or `pkg.module:entrypoint`; else the shipped one.",
    )
    guard: bool = Field(True, description="Put every session of the agent under guard.")
    instructions: str = Field(
        "You are a friendly voice assistant. Answer in one or two short sentences.",
        description="What the shipped agent is told to be.",
    )

    turn_detection: str = Field(
        "",
        description="How the shipped agent hears that a caller is done: vad, stt; empty: livekit's own model.",
    )

    groq_api_key: SecretStr | None = Field(None, validation_alias="GROQ_API_KEY")
    cartesia_api_key: SecretStr | None = Field(None, validation_alias="CARTESIA_API_KEY")
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    deepgram_api_key: SecretStr | None = Field(None, validation_alias="DEEPGRAM_API_KEY")

    simulator_url: str = Field("", description="Stand-ins for all providers, e.g. http://127.0.0.1:9100")
    groq_base_url: str = Field("", description=f"Groq, or a stand-in; empty: {GROQ_URL}")
    openai_base_url: str = Field("", description=f"OpenAI, or a stand-in; empty: {OPENAI_URL}")
    cartesia_base_url: str = Field("", description=f"Cartesia, or a stand-in; empty: {CARTESIA_URL}")

    language: str = Field("en", min_length=2, max_length=16, description="Spoken language, e.g. en")
    groq_llm_model: str = Field("llama-3.3-70b-versatile", min_length=1)
    groq_llm_fallback_model: str = Field(
        "openai/gpt-oss-20b", min_length=1, description="Second model at Groq when there is no OpenAI key."
    )
    openai_llm_model: str = Field("gpt-4.1-mini", min_length=1)
    cartesia_tts_model: str = Field("sonic-3", min_length=1)
    cartesia_voice: str = Field("", description="Cartesia voice id; empty: the plugin's own.")
    groq_tts_model: str = Field("canopylabs/orpheus-v1-english", min_length=1)
    groq_voice: str = Field("autumn", min_length=1)
    cartesia_stt_model: str = Field("", description="ink-2, ink-whisper; empty: by language.")
    groq_stt_model: str = Field("whisper-large-v3-turbo", min_length=1)

    latency_budget_ms: int = Field(
        2500, ge=200, le=60_000, description="How long a turn may retry and hedge before its first output."
    )
    hedge: bool = Field(
        True, description="Ask a second model or voice when the first is later than its own p95."
    )
    continue_answers: bool = Field(True, description="Let the next model go on where an answer was cut.")

    log_format: str = Field("auto", description="auto, console or json")
    log_level: str = Field("info", description="debug, info, warning or error")
    health_host: str = Field("127.0.0.1", min_length=1, description="Address of the health endpoint.")
    health_port: int = Field(8081, ge=0, le=65535, description="Port of the health endpoint; 0: a free one.")
    drain_timeout_s: int = Field(3600, ge=1, le=86_400, description="How long calls may go on after SIGTERM.")
    max_calls: int = Field(0, ge=0, le=1000, description="Calls at once in this container; 0: by load.")
    error_audio: str = Field("", description="Sound file for when the voice is gone; else the shipped one.")
    audio_cache_dir: str = Field(
        "", description="Where apologies in the agent's own voice are kept; empty: the user's cache folder."
    )
    max_retries: int = Field(
        3,
        ge=0,
        le=1000,
        description="Errors in a row that a caller gets an apology for, then the final message.",
    )
    on_exhausted: str = Field(
        "close",
        description="After the final message: close the session, or stay (the final message at each failure).",
    )
    log_emoji: bool = Field(False, description="A sign in front of the lines about errors in calls.")

    @field_validator("fleet")
    @classmethod
    def _fleet(cls, value: str) -> str:
        return check_fleet(value)

    @field_validator("id")
    @classmethod
    def _id(cls, value: str) -> str:
        return check_worker(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port
        except ValueError:
            raise ValueError("is not a URL; write redis://host:6379/0") from None
        if parts.scheme not in _REDIS_SCHEMES:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if parts.scheme != "unix" and not parts.hostname:
            raise ValueError("names no host; write redis://host:6379/0")
        return value

    @field_validator("simulator_url", "groq_base_url", "openai_base_url", "cartesia_base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        return _checked_url(value, {"http", "https"}, "must be an http:// or https:// URL with a host")

    @field_validator("livekit_url")
    @classmethod
    def _livekit_url(cls, value: str) -> str:
        return _checked_url(
            value, {"ws", "wss", "http", "https"}, "must be a ws:// or wss:// URL with a host"
        )

    @field_validator("agent")
    @classmethod
    def _agent(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("must be written pkg.module:server or pkg.module:entrypoint")
        return value

    @field_validator("turn_detection")
    @classmethod
    def _turn_detection(cls, value: str) -> str:
        return _one_of(value, ("vad", "stt")) if value else value

    @field_validator("log_format")
    @classmethod
    def _log_format(cls, value: str) -> str:
        return _one_of(value, _LOG_FORMATS)

    @field_validator("on_exhausted")
    @classmethod
    def _on_exhausted(cls, value: str) -> str:
        return _one_of(value, ("close", "stay"))

    @field_validator("log_level")
    @classmethod
    def _log_level(cls, value: str) -> str:
        return _one_of(value, _LOG_LEVELS)

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        if (
            self.openai_api_key is None
            and not self.simulated
            and self.groq_llm_model == self.groq_llm_fallback_model
        ):
            raise ValueError(
                "WORKER_GROQ_LLM_FALLBACK_MODEL must differ from WORKER_GROQ_LLM_MODEL:"
                " without an OPENAI_API_KEY it is the only fallback"
            )
        return self

    @property
    def simulated(self) -> bool:
        """Whether stand-ins are asked instead of the providers."""
        return bool(self.simulator_url)

    @property
    def groq_url(self) -> str:
        """Base URL in use, the stand-in's with `simulator_url`."""
        return self.groq_base_url or self._stand_in("/groq/openai/v1") or GROQ_URL

    @property
    def openai_url(self) -> str:
        """See `groq_url`."""
        return self.openai_base_url or self._stand_in("/openai/v1") or OPENAI_URL

    @property
    def cartesia_url(self) -> str:
        """See `groq_url`."""
        return self.cartesia_base_url or self._stand_in("/cartesia") or CARTESIA_URL

    def _stand_in(self, path: str) -> str:
        return f"{self.simulator_url}{path}" if self.simulator_url else ""


def _checked_url(value: str, schemes: set[str], complaint: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(complaint)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; keys have settings of their own")
    return value.rstrip("/")


def _one_of(value: str, allowed: Iterable[str]) -> str:
    if value.lower() not in allowed:
        raise ValueError(f"must be one of {', '.join(sorted(allowed))}")
    return value.lower()


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else ""
    return name if name.isupper() else f"{PREFIX}{name.upper()}"


def explain(error: ValidationError) -> str:
    """One line for the first thing that is wrong; holds the setting's name, never its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    return f"{_variable(first['loc'])}: {text}{tail}" if first["loc"] else f"{text}{tail}"


def _known() -> list[str]:
    """Names of all variables (those with an alias, like REDIS_URL, are read with our prefix too)."""
    return [f"{PREFIX}{name.upper()}" for name in WorkerSettings.model_fields]


def read_settings(**given: object) -> WorkerSettings:
    """Settings from the environment with `given` fields over them. Raises `WrongSetting`."""
    wrong = misspelt(os.environ, PREFIX, _known())
    if wrong:
        raise WrongSetting(wrong[0])
    try:
        return WorkerSettings(**given)  # pyright: ignore[reportArgumentType]  # pydantic checks each value
    except ValidationError as exc:
        raise WrongSetting(explain(exc)) from None
    except SettingsError as exc:
        raise WrongSetting("an environment variable with the prefix WORKER_ cannot be read") from exc


def _stop(line: str) -> NoReturn:
    sys.stderr.write(f"worker: {line}\n")
    raise SystemExit(2)


def load_settings(**given: object) -> WorkerSettings:
    """The same for a command line: a wrong setting prints one line to stderr and ends with exit code 2."""
    try:
        return read_settings(**given)
    except WrongSetting as exc:
        _stop(str(exc))
