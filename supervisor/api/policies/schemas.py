"""Representations of policies."""

from __future__ import annotations

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from supervisor.api.base import In, Out
from supervisor.api.overrides.schemas import Reason

Value = StrictBool | StrictInt | StrictFloat


class PolicyIn(In):
    """Rule numbers for a scope; names left out keep the wider scope's value. The whole set is replaced."""

    values: dict[str, Value] = Field(max_length=200, min_length=1, examples=[{"run_base": 5}])
    reason: Reason = Field("set by an operator", description="Why; the audit shows it.")


class PolicyOut(Out):
    """The rule numbers that were set for a scope."""

    scope: str = Field(description="`fleet`, `role:<role>` or `target:<id>`.")
    values: dict[str, Value]
    reason: str
    actor: str
    set_at: str | None
    version: int


class RuleOut(Out):
    """One rule number: what it is where no policy says otherwise (a role may have a default of its own)."""

    name: str
    default: Value
    low: float | None
    high: float | None
    text: str


class PoliciesOut(Out):
    """Policies that were set, and every number that may be."""

    items: list[PolicyOut]
    next: str | None = None
    rules: list[RuleOut]
