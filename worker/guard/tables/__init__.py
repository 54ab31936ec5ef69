"""What each provider's errors mean, as data: one small module per provider, `generic` for the rest."""

from __future__ import annotations

from typing import Final

from worker.guard.tables import cartesia, deepgram, generic, groq, openai
from worker.guard.tables.shape import Table

_TABLES: Final[dict[str, Table]] = {
    "groq": groq.TABLE,
    "openai": openai.TABLE,
    "cartesia": cartesia.TABLE,
    "deepgram": deepgram.TABLE,
}


def table_of(provider: str) -> Table:
    """The provider's table; the generic one for providers without their own."""
    return _TABLES.get(provider, generic.TABLE)


GENERIC: Final = generic.TABLE
