"""Every number of the engine's rules, with its meaning and bounds; per fleet, role and target.

Rule: `Policy` is the only place where a rule's number stands. A scope (`fleet`, `role:<role>`, `target:<id>`)
holds some of them; the narrower scope wins. docs/engine.md holds the table made from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from supervisor.wire.targets import TargetError, parse_target
from supervisor.wire.vocabulary import Role

Number: TypeAlias = float | int | bool


def _ms(low: int, high: int, text: str) -> Meta:
    return Meta(ge=low, le=high, description=text)


def _n(low: float, high: float, text: str) -> Meta:
    return Meta(ge=low, le=high, description=text)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The engine's numbers for one target. All `_ms` are durations in milliseconds."""

    # run
    run_base: Annotated[int, _n(2, 100, "faults in a row that condemn at one attempt a second or less")] = 5
    run_per_doubling: Annotated[float, _n(0, 10, "added for each doubling of attempts a second")] = 1.0
    run_chance: Annotated[float, _n(1e-12, 0.1, "chance of a run by usual noise that is accepted")] = 1e-6
    waited_chance: Annotated[
        float,
        _n(
            1e-12,
            0.1,
            "chance a second that is accepted of a run of waiting attempts, not one output between",
        ),
    ] = 1e-5
    run_max: Annotated[int, _n(2, 1_000, "but noise never asks for more than so many in a row")] = 30
    run_forget_ms: Annotated[int, _ms(1_000, 3_600_000, "a run without a new fault for so long is over")] = (
        60_000
    )
    # rate
    rate_bound: Annotated[float, _n(0.05, 1, "Wilson lower bound over 10 s that condemns")] = 0.5
    rate_finished: Annotated[int, _n(1, 1_000, "finished outcomes the rate rule needs")] = 5
    z: Annotated[float, _n(0.5, 6, "normal quantile of the 10 s bounds (1.96: 95 %)")] = 1.96
    # quorum
    bad_run: Annotated[int, _n(1, 10, "newest outcomes of a worker that must be bad for it to be bad")] = 2
    bad_run_many: Annotated[int, _n(1, 10, "the same among more than `many_workers` active ones")] = 1
    many_workers: Annotated[int, _n(1, 2_000, "active workers above which `bad_run_many` holds")] = 8
    active_ms: Annotated[int, _ms(1_000, 600_000, "a worker with an attempt in so long is active")] = 10_000
    # degraded
    degraded_bound: Annotated[float, _n(0.01, 1, "Wilson lower bound over 10 s that degrades")] = 0.2
    degraded_finished: Annotated[int, _n(1, 10_000, "finished outcomes that rule needs")] = 10
    degraded_long_z: Annotated[float, _n(0.5, 6, "normal quantile of the 60 s bound")] = 3.3
    degraded_long_bound: Annotated[float, _n(0.01, 1, "lower bound over 60 s that degrades")] = 0.1
    degraded_long_bound_many: Annotated[float, _n(0.01, 1, "the same above `many_sessions` sessions")] = 0.12
    many_sessions: Annotated[int, _n(1, 1_000_000, "sessions above which that holds")] = 500
    degraded_long_finished: Annotated[int, _n(1, 10_000, "finished outcomes the 60 s rule needs")] = 20
    slow_ms: Annotated[int, _ms(50, 60_000, "first-output budget: slower ones are slow")] = 1_600
    slow_of_ten: Annotated[int, _n(1, 11, "slow ones among the last ten first outputs (11: rule is off)")] = 8
    clear_bound: Annotated[float, _n(0, 1, "10 s bound below which a degraded target may be cleared")] = 0.1
    clear_long_bound: Annotated[float, _n(0, 1, "60 s bound below which it may be cleared")] = 0.08
    clear_ms: Annotated[int, _ms(0, 3_600_000, "for how long both must hold")] = 10_000
    degraded_share: Annotated[float, _n(0, 1, "sticky share a degraded target keeps beside healthy ones")] = (
        0.1
    )
    # suspicion
    suspect_run: Annotated[int, _n(1, 100, "run that starts suspicion probes")] = 2
    suspect_one_rate: Annotated[
        float,
        _n(
            0,
            10_000,
            "below so many attempts a second one failed attempt starts them, and takes a probe more",
        ),
    ] = 2.0
    suspect_rate: Annotated[float, _n(0, 10_000, "below so many attempts a second")] = 16.0
    suspect_every_ms: Annotated[int, _ms(1_000, 3_600_000, "at most one suspicion in so long")] = 10_000
    suspect_probes: Annotated[
        int, _n(1, 5, "probes that must all fail; a run over `suspect_run` that most workers see saves some")
    ] = 2
    suspect_noise: Annotated[
        float, _n(0, 1, "usual share of faults from which it takes a longer run, and twice the probes")
    ] = 0.03
    suspect_budget_ms: Annotated[int, _ms(200, 60_000, "least time a suspicion probe is given")] = 800
    # probes
    probe_first_ms: Annotated[int, _ms(100, 600_000, "first probe after the verdict")] = 3_000
    probe_every_ms: Annotated[int, _ms(100, 3_600_000, "then every so often")] = 6_000
    probe_credentials_ms: Annotated[int, _ms(100, 3_600_000, "the same for condemned credentials")] = 10_000
    probe_late_ms: Annotated[int, _ms(100, 3_600_000, "the same once the outage is old")] = 30_000
    probe_late_after_ms: Annotated[int, _ms(1_000, 86_400_000, "when an outage is old")] = 600_000
    probe_jitter: Annotated[float, _n(0, 0.9, "share by which the pauses vary")] = 0.2
    probe_pause_ms: Annotated[int, _ms(0, 600_000, "least time between a probe's end and the next")] = 2_000
    probe_again_ms: Annotated[int, _ms(100, 600_000, "between a good probe and the one that confirms it")] = (
        1_000
    )
    probe_goods: Annotated[int, _n(1, 10, "good probes in a row that prove a target")] = 2
    probe_budget_ms: Annotated[
        int, _ms(200, 60_000, "latency budget of a probe, first request to last byte")
    ] = 4_000
    probe_cap_per_hour: Annotated[int, _n(1, 3_600, "spend cap; beyond it one probe each two minutes")] = 240
    # re-admission
    readmit_ms: Annotated[
        int, _ms(0, 600_000, "earliest after the verdict; doubles with each failed ramp")
    ] = 5_000
    readmit_cap_ms: Annotated[int, _ms(0, 3_600_000, "but never later than")] = 120_000
    forget_ms: Annotated[int, _ms(1_000, 3_600_000, "one failed ramp is forgotten per so long healthy")] = (
        30_000
    )
    # ramping
    ramp_1: Annotated[float, _n(0.01, 1, "share admitted at the ramp's first step")] = 0.10
    ramp_2: Annotated[float, _n(0.01, 1, "at the second")] = 0.25
    ramp_3: Annotated[float, _n(0.01, 1, "at the third")] = 0.50
    ramp_step_ms: Annotated[
        int, _ms(100, 600_000, "length of a step; after the third the target is healthy")
    ] = 4_000
    ramp_run: Annotated[int, _n(1, 100, "faults in a row that end a ramp")] = 3
    ramp_faults: Annotated[int, _n(1, 100, "or so many faults in it ...")] = 3
    ramp_bound: Annotated[float, _n(0.01, 1, "... with this lower bound")] = 0.1
    ramp_workers: Annotated[int, _n(1, 2_000, "workers whose faults end a ramp without quorum")] = 8
    new_calls_only: Annotated[
        bool, Meta(description="a ramp admits only calls that began after it (a voice stays)")
    ] = False
    # 429
    hold_min_ms: Annotated[int, _ms(100, 600_000, "least hold-off taken from a Retry-After")] = 1_000
    hold_max_ms: Annotated[
        int, _ms(1_000, 3_600_000, "most hold-off taken from one worker's Retry-After")
    ] = 60_000
    hold_agreed_ms: Annotated[int, _ms(1_000, 86_400_000, "most when two workers agree")] = 600_000
    hold_base_ms: Annotated[int, _ms(100, 600_000, "hold-off without Retry-After; doubles each time")] = 2_000
    hold_cap_ms: Annotated[int, _ms(100, 3_600_000, "but never more than")] = 30_000
    # credentials
    credential_faults: Annotated[
        int, _n(1, 100, "refusals that condemn a key when only one worker uses it")
    ] = 2
    credential_forget_ms: Annotated[int, _ms(1_000, 3_600_000, "how long one refusal counts")] = 60_000
    # what workers are told
    first_output_ms: Annotated[
        int, _ms(100, 60_000, "first-output deadline; own quantiles may shorten it")
    ] = 2_000
    first_output_min_ms: Annotated[int, _ms(100, 60_000, "but never below")] = 1_000
    first_output_p95_times: Annotated[float, _n(1, 100, "to so many times the target's own p95")] = 3.0
    stall_ms: Annotated[int, _ms(100, 60_000, "longest gap within an answer")] = 3_000
    overdue_share: Annotated[float, _n(0.1, 1, "share of the deadline after which an attempt is overdue")] = (
        0.8
    )
    overdue_median_times: Annotated[
        float, _n(1, 100, "or so many medians, or the p95 when that is later")
    ] = 1.5
    overdue_min_ms: Annotated[int, _ms(10, 60_000, "but never below")] = 150
    learn_samples: Annotated[int, _n(1, 100_000, "first outputs needed before own quantiles are used")] = 20
    hedge: Annotated[bool, Meta(description="start the next target beside one that is over its p95")] = True
    # A caller hears silence from about a second on: without own numbers the second model starts before that.
    hedge_start_ms: Annotated[int, _ms(50, 60_000, "the hedge's delay until the own p95 is known")] = 800
    max_attempts: Annotated[int, _n(1, 10, "attempts on one target in one turn")] = 2
    backoff_base_ms: Annotated[int, _ms(0, 60_000, "backoff before the second attempt")] = 100
    backoff_cap_ms: Annotated[int, _ms(0, 60_000, "longest backoff")] = 1_000
    backoff_jitter: Annotated[float, _n(0, 1, "share of the backoff that is random")] = 0.5
    retry_ratio: Annotated[float, _n(0, 1, "what a success gives back to the retry budget")] = 0.1
    retry_floor_per_min: Annotated[
        float, _n(0, 100_000, "retries a minute the whole fleet may always make")
    ] = 60.0
    ttl_ms: Annotated[int, _ms(10_000, 86_400_000, "how long workers keep a strategy without news")] = 600_000
    ttl_condemned_ms: Annotated[int, _ms(10_000, 86_400_000, "the same for one that shuts a target")] = (
        120_000
    )


ROLE_DEFAULTS: Final[dict[Role, dict[str, Number]]] = {
    # A recogniser's first output waits for the caller to have said a word; its probe is a second of speech.
    Role.STT: {"slow_ms": 2_200, "first_output_ms": 3_000, "suspect_budget_ms": 3_000},
    # Hearing that the caller is done, a model that hangs and the next one's answer must fit into 2.5 s.
    Role.LLM: {"first_output_ms": 1_500},
    # The same for a voice that hangs; and a voice once heard stays for the call.
    Role.TTS: {
        "first_output_ms": 1_500,
        "slow_ms": 1_100,
        "suspect_budget_ms": 1_500,
        "new_calls_only": True,
    },
    Role.REALTIME: {},
}

NAMES: Final = frozenset(field.name for field in msgspec.structs.fields(Policy))
_FLEET: Final = "fleet"


class PolicyError(ValueError):
    """A policy was refused; the text says which number and what it may be."""


class Described(NamedTuple):
    """One number as pages and docs show it. low, high: its bounds, None for a switch."""

    name: str
    default: Number
    low: float | None
    high: float | None
    text: str


def described() -> list[Described]:
    """Every number with its default, bounds and meaning, in the order they stand in `Policy`."""
    return [
        Described(field.name, field.default, meta.ge, meta.le, meta.description or "")
        for field in msgspec.structs.fields(Policy)
        for meta in getattr(field.type, "__metadata__", ())
        if isinstance(meta, Meta)
    ]


def check_scope(scope: str) -> str:
    """The scope, or `PolicyError`: `fleet`, `role:<role>` or `target:<id>`."""
    if scope == _FLEET:
        return scope
    kind, _, rest = scope.partition(":")
    if kind == "role" and rest in {role.value for role in Role}:
        return scope
    if kind == "target":
        try:
            parse_target(rest)
        except TargetError as exc:
            raise PolicyError(f"scope {scope!r}: {exc}") from None
        return scope
    raise PolicyError("scope must be fleet, role:<stt|llm|tts|realtime> or target:<id>")


def check_values(values: Mapping[str, Number]) -> None:
    """Raises `PolicyError` unless every name is known, every number within its bounds, and they fit together."""
    unknown = sorted(set(values) - NAMES)
    if unknown:
        raise PolicyError(f"no such number: {', '.join(unknown)[:200]}; see docs/engine.md")
    _build(values)


def _build(values: Mapping[str, Number]) -> Policy:
    try:
        policy = msgspec.convert(dict(values), Policy)
    except msgspec.ValidationError as exc:
        text = str(exc)  # holds the field's name and bounds, never more than the number given
        raise PolicyError(text.replace("`$.", "`").replace("Expected", "expected")) from None
    for low, high in (
        ("clear_bound", "degraded_bound"),
        ("clear_long_bound", "degraded_long_bound"),
        ("degraded_bound", "rate_bound"),
        ("ramp_1", "ramp_2"),
        ("ramp_2", "ramp_3"),
        ("first_output_min_ms", "first_output_ms"),
        ("hold_min_ms", "hold_max_ms"),
        ("hold_max_ms", "hold_agreed_ms"),
    ):
        if getattr(policy, low) > getattr(policy, high):
            raise PolicyError(f"{low} must not be above {high}")
    return policy


class PolicyBook:
    """The scopes' numbers, and the policy that follows from them for each target (cached)."""

    __slots__ = ("_cache", "scopes")

    def __init__(self, scopes: dict[str, dict[str, Number]] | None = None) -> None:
        self.scopes: dict[str, dict[str, Number]] = scopes or {}
        self._cache: dict[str, Policy] = {}

    def put(self, scope: str, values: Mapping[str, Number]) -> None:
        """Replace a scope's numbers; empty: back to the defaults. Raises `PolicyError` and changes nothing."""
        check_scope(scope)
        check_values(values)
        if values:
            self.scopes[scope] = dict(values)
        else:
            self.scopes.pop(scope, None)
        self._cache.clear()

    def of(self, target_id: str, role: Role) -> Policy:
        """What holds for a target: role defaults, then fleet, role and target scopes.

        A narrower scope whose numbers contradict the wider ones (a lower bound above an upper one) is left out.
        """
        policy = self._cache.get(target_id)
        if policy is None:
            policy = self._cache[target_id] = self._merged(target_id, role)
        return policy

    def _merged(self, target_id: str, role: Role) -> Policy:
        layers = [
            ROLE_DEFAULTS[role],
            self.scopes.get(_FLEET, {}),
            self.scopes.get(f"role:{role.value}", {}),
            self.scopes.get(f"target:{target_id}", {}),
        ]
        merged: dict[str, Number] = {}
        for layer in layers:
            try:
                _build({**merged, **layer})
            except PolicyError:
                continue
            merged.update(layer)
        return _build(merged)
