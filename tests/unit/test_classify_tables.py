"""What each provider's errors mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.wire.vocabulary import FaultKind as K
from supervisor.wire.vocabulary import Phase
from worker.guard.classify import MAX_RETRY_AFTER_MS, classify, duration_ms, retry_after_ms


@pytest.mark.parametrize(
    ("provider", "status", "code", "text", "kind"),
    [
        ("groq", 401, "invalid_api_key", "Invalid API Key", K.AUTHENTICATION),
        ("groq", 429, "rate_limit_exceeded", "Rate limit reached", K.RATE_LIMIT),
        ("groq", 498, "capacity_exceeded", "", K.OVERLOADED),
        ("groq", 498, "", "", K.OVERLOADED),
        ("groq", 403, "model_permission_blocked_project", "", K.PERMISSION),
        ("groq", 400, "model_decommissioned", "", K.MODEL_UNAVAILABLE),
        ("groq", 413, "rate_limit_exceeded", "Request too large for model", K.BAD_REQUEST),
        ("groq", 403, "", "blocked", K.PERMISSION),
        ("groq", 503, "", "Service Unavailable", K.OVERLOADED),
        ("openai", 429, "insufficient_quota", "You exceeded your current quota", K.QUOTA),
        ("openai", 429, "", "You exceeded your current quota, please check your plan", K.QUOTA),
        ("openai", 429, "rate_limit_exceeded", "", K.RATE_LIMIT),
        ("openai", 503, "slow_down", "", K.RATE_LIMIT),
        ("openai", 500, "server_error", "", K.SERVER),
        ("openai", 403, "unsupported_country_region_territory", "", K.PERMISSION),
        ("openai", 401, "invalid_request_error", "", K.AUTHENTICATION),
        ("cartesia", 429, "", "Too many concurrent requests", K.CONCURRENCY),
        ("cartesia", 429, "concurrency_limited", "", K.CONCURRENCY),
        ("cartesia", 429, "", "Too Many Requests", K.RATE_LIMIT),
        ("cartesia", 402, "", "", K.QUOTA),
        ("cartesia", 401, "", "", K.AUTHENTICATION),
        ("deepgram", 401, "INVALID_AUTH", "", K.AUTHENTICATION),
        ("deepgram", 429, "", "", K.CONCURRENCY),
        ("deepgram", 402, "", "", K.QUOTA),
        ("deepgram", 1011, "", "NET-0001: no audio", K.LOCAL),
        ("deepgram", 1011, "", "NET-0000", K.SERVER),
        ("someone", 400, "", "", K.BAD_REQUEST),
        ("someone", 404, "", "", K.MODEL_UNAVAILABLE),
        ("someone", 418, "", "", K.BAD_REQUEST),
        ("someone", 504, "", "", K.SERVER),
        ("someone", 529, "", "", K.OVERLOADED),
        ("someone", 599, "", "", K.SERVER),
        ("someone", 499, "", "", K.LOCAL),
        ("someone", 302, "", "", K.PROTOCOL),
        ("someone", 1013, "", "", K.OVERLOADED),
    ],
)
def test_kind_of_a_provider_error(provider: str, status: int, code: str, text: str, kind: K) -> None:
    assert classify(provider, status=status, code=code, text=text).kind is kind


@pytest.mark.parametrize(
    ("types", "phase", "kind"),
    [
        (("APITimeoutError", "APITimeoutError", "PoolTimeout"), Phase.FIRST_OUTPUT, K.LOCAL),
        (("CancelledError",), Phase.MID_STREAM, K.LOCAL),
        (("APIConnectionError", "APIConnectionError", "ConnectError"), Phase.CONNECT, K.CONNECT),
        (("APITimeoutError", "ConnectTimeout"), Phase.CONNECT, K.CONNECT),
        (("APITimeoutError", "ReadTimeout"), Phase.FIRST_OUTPUT, K.FIRST_OUTPUT_TIMEOUT),
        (("APITimeoutError", "ReadTimeout"), Phase.MID_STREAM, K.STALLED),
        (("APIConnectionError", "RemoteProtocolError"), Phase.MID_STREAM, K.CUT),
        (("APIConnectionError", "RemoteProtocolError"), Phase.CONNECT, K.CONNECT),
        (("APIConnectionError", "JSONDecodeError"), Phase.MID_STREAM, K.PROTOCOL),
        (("APIConnectionError",), Phase.MID_STREAM, K.CUT),
        (("RuntimeError",), Phase.CONNECT, K.UNKNOWN),
        ((), Phase.CONNECT, K.UNKNOWN),
    ],
)
def test_kind_of_a_transport_error(types: tuple[str, ...], phase: Phase, kind: K) -> None:
    assert classify("groq", exc_types=types, phase=phase).kind is kind


@pytest.mark.parametrize(
    "text", ["Temporary failure in name resolution", "[Errno 101] Network is unreachable"]
)
def test_our_own_network_is_nobodys_fault(text: str) -> None:
    assert classify("groq", exc_types=("ConnectError",), text=text).kind is K.LOCAL


@pytest.mark.parametrize("phase", [Phase.CONNECT, Phase.MID_STREAM])
def test_a_websocket_closed_without_a_code(phase: Phase) -> None:
    kind = classify("cartesia", status=-1, exc_types=("APIStatusError",), phase=phase).kind
    assert kind is (K.CUT if phase is Phase.MID_STREAM else K.CONNECT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2m59.56s", 179_560), ("1h2m", 3_720_000), ("120ms", 120), ("7.66s", 7_660), ("20 seconds", 20_000),
        ("10", 10_000), ("6m0s", 360_000), ("", 0), ("soon", 0),
        ("-3", 0), ("nan", 0), ("inf", 0), ("1e99", MAX_RETRY_AFTER_MS),
        ("3 minutes", 180_000), ("500 milliseconds", 500), ("Thu, 05 Mar 2026 07:28:00 GMT", 0),
    ],
)  # fmt: skip
def test_durations(text: str, expected: int) -> None:
    assert duration_ms(text) == expected


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ({"retry-after": "7"}, "", 7_000),
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 250),
        ({}, "Please try again in 2m3.5s. Visit our page", 123_500),
        ({}, "Please try again in 430ms.", 430),
        ({"retry-after": "2"}, "try again in 9s", 2_000),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7.66s"}, "", 7_660),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "7.66s"}, "", 0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "", 0),
        ({}, "", 0),
    ],
)
def test_how_long_a_provider_wants_to_be_left_alone(
    headers: dict[str, str], text: str, expected: int
) -> None:
    assert retry_after_ms(headers, text) == expected


def test_only_limits_and_overload_carry_a_retry_after() -> None:
    headers = {"retry-after": "9"}
    assert classify("groq", status=429, headers=headers).retry_after_ms == 9_000
    assert classify("groq", status=503, headers=headers).retry_after_ms == 9_000
    assert classify("groq", status=401, headers=headers).retry_after_ms == 0


@given(
    provider=st.sampled_from(["groq", "openai", "cartesia", "deepgram", "x"]),
    status=st.integers(-10, 10_000),
    code=st.text(max_size=40),
    text=st.text(max_size=400),
    header=st.text(max_size=40),
    request_id=st.text(max_size=200),
    phase=st.sampled_from(list(Phase)),
)
def test_nothing_makes_it_raise_or_grow(
    provider: str, status: int, code: str, text: str, header: str, request_id: str, phase: Phase
) -> None:
    fault = classify(
        provider, status=status, code=code, text=text, headers={"retry-after": header}, request_id=request_id,
        phase=phase,
    )  # fmt: skip
    assert len(fault.message) <= 300
    assert len(fault.request_id) <= 128
    assert 0 <= fault.retry_after_ms <= MAX_RETRY_AFTER_MS
    assert fault.status >= 0
