"""The words of the project, as closed enums and tables (docs/contract.md).

Rule of this module: it imports nothing of `supervisor`, does no I/O, and every enum here is closed:
a value that is not listed is an error for the reader, never a reason to allow something.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Role(StrEnum):
    """What a service does in a call. `realtime` models are observed only."""

    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    REALTIME = "realtime"


class FaultKind(StrEnum):
    """How an attempt went wrong."""

    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    CONCURRENCY = "concurrency"
    BAD_REQUEST = "bad_request"
    MODEL_UNAVAILABLE = "model_unavailable"
    OVERLOADED = "overloaded"
    SERVER = "server"
    CONNECT = "connect"
    FIRST_OUTPUT_TIMEOUT = "first_output_timeout"
    STALLED = "stalled"
    CUT = "cut"
    PROTOCOL = "protocol"
    EMPTY = "empty"
    SILENT = "silent"
    LOCAL = "local"
    UNKNOWN = "unknown"


class CountsAgainst(StrEnum):
    """What a fault kind is evidence against."""

    HEALTH = "health"
    LIMITS = "limits"
    CREDENTIALS = "credentials"
    NOTHING = "nothing"


class KindRule(NamedTuple):
    """What follows from a fault kind.

    counts:      what it is evidence against.
    retry_same:  whether the same target may be asked again in the same turn.
    retry_other: whether another target may be asked.
    whole_target: a credential fault that condemns this target alone (a 403), not the provider's key.
    """

    counts: CountsAgainst
    retry_same: bool
    retry_other: bool
    whole_target: bool = False


_H, _L, _C, _N = CountsAgainst.HEALTH, CountsAgainst.LIMITS, CountsAgainst.CREDENTIALS, CountsAgainst.NOTHING

KIND_RULES: Final[dict[FaultKind, KindRule]] = {
    FaultKind.AUTHENTICATION: KindRule(_C, False, True),
    FaultKind.PERMISSION: KindRule(_C, False, True, whole_target=True),
    FaultKind.QUOTA: KindRule(_C, False, True),
    FaultKind.RATE_LIMIT: KindRule(_L, False, True),
    FaultKind.CONCURRENCY: KindRule(_L, False, True),
    # The request itself is wrong: another provider may still understand it, the same one will not.
    FaultKind.BAD_REQUEST: KindRule(_N, False, True),
    FaultKind.MODEL_UNAVAILABLE: KindRule(_H, False, True),
    FaultKind.OVERLOADED: KindRule(_H, True, True),
    FaultKind.SERVER: KindRule(_H, True, True),
    FaultKind.CONNECT: KindRule(_H, True, True),
    FaultKind.FIRST_OUTPUT_TIMEOUT: KindRule(_H, False, True),
    FaultKind.STALLED: KindRule(_H, True, True),
    FaultKind.CUT: KindRule(_H, True, True),
    FaultKind.PROTOCOL: KindRule(_H, True, True),
    FaultKind.EMPTY: KindRule(_H, True, True),
    FaultKind.SILENT: KindRule(_H, True, True),
    FaultKind.LOCAL: KindRule(_N, True, True),
    # Not understood is not harmless: it counts like a server fault.
    FaultKind.UNKNOWN: KindRule(_H, True, True),
}


class Phase(StrEnum):
    """Where in an attempt a fault happened."""

    CONNECT = "connect"
    FIRST_OUTPUT = "first_output"
    MID_STREAM = "mid_stream"


class State(StrEnum):
    """A target's verdict. `condemned` states admit nothing but probes."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    LIMITED = "limited"
    UNHEALTHY = "unhealthy"
    PROBING = "probing"
    RAMPING = "ramping"


class OverrideState(StrEnum):
    """An operator's verdict that lies over the engine's."""

    FORCED_UNHEALTHY = "forced_unhealthy"
    FORCED_HEALTHY = "forced_healthy"
    OBSERVE_ONLY = "observe_only"


class WorkerState(StrEnum):
    """A worker container's own state."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


class DirectiveKind(StrEnum):
    """What the leader may ask of one worker."""

    DRAIN = "drain"
    PROBE = "probe"


class TokenRole(StrEnum):
    """What a bearer token may do; each includes the ones before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


HEALTH_KINDS: Final = frozenset(k for k, r in KIND_RULES.items() if r.counts is CountsAgainst.HEALTH)
CREDENTIAL_KINDS: Final = frozenset(k for k, r in KIND_RULES.items() if r.counts is CountsAgainst.CREDENTIALS)
LIMIT_KINDS: Final = frozenset(k for k, r in KIND_RULES.items() if r.counts is CountsAgainst.LIMITS)

# Upper bounds of the first-output histogram in milliseconds; one more bucket holds what is over the last.
# Steps of about 1.4x: a p95 read from it is within 20 % of the truth, enough for deadlines.
HISTOGRAM_BOUNDS_MS: Final[tuple[int, ...]] = (
    50, 70, 100, 140, 200, 280, 400, 560, 800, 1100, 1600, 2200, 3200, 4500, 6400, 9000, 13000, 20000,
)  # fmt: skip
HISTOGRAM_BUCKETS: Final = len(HISTOGRAM_BOUNDS_MS) + 1
