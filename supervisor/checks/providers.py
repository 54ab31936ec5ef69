"""Which requests cost nothing, per provider (docs/operations.md has the table). Data from settings, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from supervisor.settings import SupervisorSettings

CARTESIA_VERSION = "2025-04-16"


class Source(StrEnum):
    """Where a hint comes from."""

    API = "api"
    STATUS_PAGE = "status_page"


@dataclass(frozen=True, slots=True)
class Look:
    """One request. `headers` hold the key: they are in no repr and no log."""

    provider: str
    source: Source
    url: str
    every_s: float
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def _api(settings: SupervisorSettings) -> dict[str, tuple[SecretStr | None, str, str, str]]:
    return {
        "groq": (settings.groq_api_key, f"{settings.groq_base_url}/models", "Authorization", "Bearer "),
        "openai": (settings.openai_api_key, f"{settings.openai_base_url}/models", "Authorization", "Bearer "),
        "cartesia": (settings.cartesia_api_key, f"{settings.cartesia_base_url}/voices", "X-API-Key", ""),
        "deepgram": (
            settings.deepgram_api_key,
            f"{settings.deepgram_base_url}/auth/token",
            "Authorization",
            "Token ",
        ),
    }


def looks(settings: SupervisorSettings) -> list[Look]:
    """The requests for every provider whose key is known; none for the others, whose health nobody pays for."""
    pages = {
        "groq": settings.groq_status_url,
        "openai": settings.openai_status_url,
        "cartesia": settings.cartesia_status_url,
        "deepgram": settings.deepgram_status_url,
    }
    found: list[Look] = []
    for provider, (key, url, header, prefix) in _api(settings).items():
        value = key.get_secret_value().strip() if key is not None else ""
        if not value or not value.isascii() or not value.isprintable():
            continue
        headers = {header: prefix + value}
        if provider == "cartesia":
            headers["Cartesia-Version"] = CARTESIA_VERSION
        found.append(Look(provider, Source.API, url, settings.checks_interval_s, headers))
        found.append(Look(provider, Source.STATUS_PAGE, pages[provider], settings.status_interval_s))
    return found
