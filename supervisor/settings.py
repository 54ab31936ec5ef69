"""The supervisor's settings: environment variables with the prefix `SUPERVISOR_`, and the usual shared names.

Rule: a secret is a `SecretStr` and its value is in no message, whatever is wrong with it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from supervisor.wire.keys import check_fleet, check_worker
from supervisor.wire.spelling import misspelt

PREFIX = "SUPERVISOR_"
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
MIN_TOKEN_CHARACTERS = 16
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})


class LogFormat(StrEnum):
    """How log lines look: `auto` is `console` on a terminal and `json` elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least important line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class WrongSetting(ValueError):
    """A setting cannot be used. The text is one line that names the variable and says what to change."""


def _replica_id() -> str:
    """Unique per process: two replicas on one host must never take each other for themselves."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).strip("-._")[:64] or "supervisor"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class SupervisorSettings(BaseSettings):
    """Everything that can be set from outside. Durations say their unit in the name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", env_ignore_empty=True, populate_by_name=True, frozen=True
    )

    fleet: str = Field("default", description="Which fleet of workers; keeps staging and production apart.")
    redis_url: SecretStr = Field(
        SecretStr(DEFAULT_REDIS_URL),
        validation_alias="REDIS_URL",
        description="redis://, rediss:// or unix:// URL of the one primary.",
    )
    redis_timeout_s: float = Field(1.0, ge=0.1, le=30, description="Longest wait for any answer of Redis.")

    host: str = Field("127.0.0.1", min_length=1, description="Address that REST and pages listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port of REST and pages; 0 takes a free one.")
    allowed_hosts: str = Field(
        "", description="Further Host names that loopback access without tokens allows."
    )
    admin_token: SecretStr | None = Field(None, description="A first admin token; at least 16 characters.")
    metrics_open: bool = Field(False, description="Serve /metrics without a token.")

    state_dir: Path | None = Field(
        None, description="Folder for what must outlive Redis (see docs/contract.md)."
    )
    replica: str = Field(default_factory=_replica_id, description="This process's name; unique in the fleet.")
    lease_ttl_ms: int = Field(
        1500, ge=300, le=60_000, description="The leader is given up after this silence."
    )
    lease_renew_ms: int = Field(400, ge=50, le=20_000, description="How often the leader renews its lease.")

    log_format: LogFormat = Field(LogFormat.AUTO, description="auto, console or json.")
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error.")

    checks: bool = Field(
        True, description="Look at providers and their status pages now and then (spend-free)."
    )
    checks_interval_s: float = Field(
        30.0, ge=1, le=3600, description="Time between two looks at one provider."
    )
    status_interval_s: float = Field(
        60.0, ge=5, le=3600, description="Time between two looks at a status page."
    )
    groq_api_key: SecretStr | None = Field(None, validation_alias="GROQ_API_KEY")
    cartesia_api_key: SecretStr | None = Field(None, validation_alias="CARTESIA_API_KEY")
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    deepgram_api_key: SecretStr | None = Field(None, validation_alias="DEEPGRAM_API_KEY")
    groq_base_url: str = Field("https://api.groq.com/openai/v1", description="Groq, or a stand-in.")
    cartesia_base_url: str = Field("https://api.cartesia.ai", description="Cartesia, or a stand-in.")
    openai_base_url: str = Field("https://api.openai.com/v1", description="OpenAI, or a stand-in.")
    deepgram_base_url: str = Field("https://api.deepgram.com/v1", description="Deepgram, or a stand-in.")
    groq_status_url: str = Field("https://groqstatus.com/api/v2/summary.json")
    cartesia_status_url: str = Field("https://status.cartesia.ai/api/v2/summary.json")
    openai_status_url: str = Field("https://status.openai.com/api/v2/summary.json")
    deepgram_status_url: str = Field("https://status.deepgram.com/api/v2/status.json")

    @property
    def loopback(self) -> bool:
        """Whether REST is reachable from this machine alone."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def extra_hosts(self) -> frozenset[str]:
        """`allowed_hosts` taken apart: comma-separated, lower case."""
        return frozenset(part.strip().lower() for part in self.allowed_hosts.split(",") if part.strip())

    @field_validator("fleet")
    @classmethod
    def _fleet(cls, value: str) -> str:
        return check_fleet(value)

    @field_validator("replica")
    @classmethod
    def _replica(cls, value: str) -> str:
        return check_worker(value)

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(value.get_secret_value())
            _ = parts.port
        except ValueError:
            raise ValueError("is not a URL; write redis://host:6379/0") from None
        if parts.scheme not in _REDIS_SCHEMES:
            raise ValueError("must begin with redis://, rediss:// or unix://")
        if parts.scheme != "unix" and not parts.hostname:
            raise ValueError("names no host; write redis://host:6379/0")
        if parts.scheme != "unix" and parts.path not in {"", "/"} and not parts.path[1:].isdigit():
            raise ValueError("must end with the number of a database, e.g. redis://host:6379/0")
        return value

    @field_validator("admin_token")
    @classmethod
    def _admin_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_TOKEN_CHARACTERS:
            raise ValueError(f"is too short; use at least {MIN_TOKEN_CHARACTERS} random characters")
        return value

    @field_validator(
        "groq_base_url", "cartesia_base_url", "openai_base_url", "deepgram_base_url",
        "groq_status_url", "cartesia_status_url", "openai_status_url", "deepgram_status_url",
    )  # fmt: skip
    @classmethod
    def _http_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:
            raise ValueError("is not a URL; write https://host/path") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL with a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a user or password; keys have settings of their own")
        return value.rstrip("/")

    @field_validator("state_dir")
    @classmethod
    def _state_dir(cls, value: Path | None) -> Path | None:
        if value is not None and value.exists() and not value.is_dir():
            raise ValueError("is a file; name a folder that the supervisor may write to")
        return value

    @model_validator(mode="after")
    def _lease(self) -> Self:
        # Two renewals may be lost before the lease is: one slow answer must not cost the leadership.
        if self.lease_renew_ms * 3 > self.lease_ttl_ms:
            raise ValueError("SUPERVISOR_LEASE_RENEW_MS must be at most a third of SUPERVISOR_LEASE_TTL_MS")
        return self


def _variable(location: tuple[int | str, ...]) -> str:
    """The environment variable's name for where pydantic saw the error."""
    name = str(location[0]) if location else ""
    return name if name.isupper() else f"{PREFIX}{name.upper()}"


def explain(error: ValidationError) -> str:
    """One line for the first thing that is wrong; holds the setting's name, never its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    text = first["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    if not first["loc"]:
        return f"{text}{tail}"
    return f"{_variable(first['loc'])}: {text}{tail}"


def _known() -> list[str]:
    """Names of all variables (those with an alias are read with our prefix too); two are the command line's."""
    ours = [f"{PREFIX}{name.upper()}" for name in SupervisorSettings.model_fields]
    return [*ours, "SUPERVISOR_URL", "SUPERVISOR_TOKEN"]


def read_settings(**given: object) -> SupervisorSettings:
    """Settings from the environment with `given` fields over them. Raises `WrongSetting`."""
    wrong = misspelt(os.environ, PREFIX, _known())
    if wrong:
        raise WrongSetting(wrong[0])
    try:
        return SupervisorSettings(**given)  # pyright: ignore[reportArgumentType]  # pydantic checks each value
    except ValidationError as exc:
        raise WrongSetting(explain(exc)) from None
    except SettingsError as exc:
        raise WrongSetting("an environment variable with the prefix SUPERVISOR_ cannot be read") from exc


def stop_with(line: str) -> NoReturn:
    """Say one line on stderr and end with exit code 2."""
    sys.stderr.write(f"supervisor: {line}\n")
    raise SystemExit(2)


def load_settings(**given: object) -> SupervisorSettings:
    """The same for a command line: a wrong setting prints one line to stderr and ends with exit code 2."""
    try:
        settings = read_settings(**given)
    except WrongSetting as exc:
        stop_with(str(exc))
    if settings.state_dir is not None:
        try:
            settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            stop_with(
                f"SUPERVISOR_STATE_DIR: cannot be made ({exc.strerror}); name a folder that may be written to"
            )
        if not os.access(settings.state_dir, os.W_OK | os.X_OK):
            stop_with("SUPERVISOR_STATE_DIR: may not be written to; change its owner or name another folder")
    return settings
