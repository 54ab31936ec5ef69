"""Representations of overrides."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from supervisor.api.base import In, Out
from supervisor.wire.vocabulary import OverrideState

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class OverrideIn(In):
    """What an operator wants."""

    state: OverrideState
    reason: Reason = Field(description="Why; the audit and the page show it.")
    ttl_s: int = Field(600, ge=1, le=86_400, strict=True, description="Runs out after so many seconds.")


class OverrideOut(Out):
    """An override in force."""

    scope: str = Field(description="A target id, or `provider:<name>`.")
    state: OverrideState
    reason: str
    actor: str = Field(description="Id of the token that set it.")
    set_at: str | None
    expires_at: str | None
    version: int
    revision: int = Field(0, description="Revision of the strategy that carries it; only in answers to PUT.")
