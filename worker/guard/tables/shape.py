"""The shape of a provider's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.wire.vocabulary import FaultKind


@dataclass(frozen=True, slots=True)
class Table:
    """Read in this order: code, text, status. Codes and texts are lower case; a text matches anywhere.

    statuses: HTTP status (also inside a WebSocket event). closes: WebSocket close codes.
    """

    codes: Mapping[str, FaultKind] = field(default_factory=dict[str, FaultKind])
    texts: tuple[tuple[str, FaultKind], ...] = ()
    statuses: Mapping[int, FaultKind] = field(default_factory=dict[int, FaultKind])
    closes: Mapping[int, FaultKind] = field(default_factory=dict[int, FaultKind])
