"""Plain values out of the exceptions that plugins raise."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import openai
import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from supervisor.wire.vocabulary import FaultKind, Phase
from worker.guard.errors import api_error, guard_fault
from worker.guard.evidence import dig, fault_of, watch
from worker.guard.faults import Fault

KEY = "gsk_thisIsTheSecretKey1234567890"


def sdk_error(status: int, body: dict[str, Any], **headers: str) -> openai.APIStatusError:
    request = httpx2.Request("POST", "https://x/v1", headers={"Authorization": f"Bearer {KEY}"})
    response = httpx2.Response(status, json=body, headers=headers, request=request)
    return openai.APIStatusError("Error code: 429", response=response, body=body.get("error"))


def as_the_plugin_raises_it(cause: openai.APIStatusError) -> APIStatusError:
    try:
        try:
            raise cause
        except openai.APIStatusError as e:
            raise APIStatusError(e.message, status_code=e.status_code, body=e.body) from None
    except APIStatusError as raised:
        return raised


def test_headers_and_code_hang_on_the_hidden_context() -> None:
    body = {"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}
    raised = as_the_plugin_raises_it(sdk_error(429, body, **{"retry-after": "7", "x-request-id": "req_1"}))
    fault = fault_of(raised, "groq", Phase.CONNECT)
    assert (fault.kind, fault.status, fault.retry_after_ms, fault.request_id) == (
        FaultKind.RATE_LIMIT, 429, 7_000, "req_1"
    )  # fmt: skip
    assert fault.message == "Rate limit reached"
    assert KEY not in repr(dig(raised)) + repr(fault)


def test_what_the_error_handler_saw_outlives_the_context() -> None:
    class Plugin:
        handler: Any = None

        def on(self, event: str, handler: Any) -> None:
            assert event == "error"
            self.handler = handler

        def off(self, event: str, handler: Any) -> None:
            assert (event, handler) == ("error", self.handler)
            self.handler = None

    class Event:
        def __init__(self, error: Exception) -> None:
            self.error = error

    plugin = Plugin()
    stop = watch(plugin)
    raised = as_the_plugin_raises_it(sdk_error(429, {"error": {"message": "x"}}, **{"retry-after": "9"}))
    plugin.handler(Event(raised))
    raised.__context__ = StopAsyncIteration()
    assert fault_of(raised, "groq", Phase.FIRST_OUTPUT).retry_after_ms == 9_000
    stop()
    assert plugin.handler is None


@pytest.mark.parametrize(
    ("said", "kind", "status"),
    [
        (
            "{'type': 'error', 'done': True, 'status_code': 429, 'error': 'Too many concurrent requests'}",
            FaultKind.CONCURRENCY,
            429,
        ),
        (
            "{'status_code': 429, 'error_code': 'concurrency_limited', 'title': 'T', 'message': 'm'}",
            FaultKind.CONCURRENCY,
            429,
        ),
        ("{'status_code': 401, 'error': 'Invalid API key'}", FaultKind.AUTHENTICATION, 401),
        ("{'status_code': 500, 'error': \"it's broken\"}", FaultKind.SERVER, 500),
        ('{"status_code": 402, "error": null}', FaultKind.QUOTA, 402),
        ("{not a dictionary", FaultKind.UNKNOWN, 0),
    ],
)
def test_cartesias_errors_are_read_out_of_their_text(said: str, kind: FaultKind, status: int) -> None:
    fault = fault_of(APIError(f"Cartesia returned error: {said}"), "cartesia", Phase.FIRST_OUTPUT)
    assert (fault.kind, fault.status) == (kind, status)


def test_causes_tell_more_than_wrappings() -> None:
    error = APIConnectionError()
    error.__cause__ = openai.APIConnectionError(request=httpx2.Request("GET", "https://x"))
    error.__cause__.__cause__ = httpx2.PoolTimeout("pool")
    assert fault_of(error, "groq", Phase.CONNECT).kind is FaultKind.LOCAL
    error.__cause__.__cause__ = httpx2.ConnectError("refused")
    assert fault_of(APIConnectionError(), "groq", Phase.MID_STREAM).kind is FaultKind.CUT
    assert fault_of(APITimeoutError(), "groq", Phase.FIRST_OUTPUT).kind is FaultKind.FIRST_OUTPUT_TIMEOUT


def test_being_cancelled_is_local() -> None:
    assert fault_of(asyncio.CancelledError(), "groq", Phase.CONNECT).kind is FaultKind.LOCAL


def test_an_exception_that_cannot_be_printed_or_loops_is_still_a_fault() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

        @property
        def status(self) -> int:
            raise RuntimeError

    assert fault_of(Odd(), "groq", Phase.CONNECT).kind is FaultKind.UNKNOWN
    loop = APIConnectionError()
    loop.__cause__ = loop
    assert fault_of(loop, "groq", Phase.CONNECT).kind is FaultKind.CONNECT


@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.parametrize("status", [0, 200, 401, 499, 503, 1011])
def test_every_fault_makes_one_of_livekits_errors_and_never_a_silent_499(
    kind: FaultKind, status: int
) -> None:
    error = api_error(Fault(kind, status=status))
    assert isinstance(error, APIError)
    assert not error.retryable
    assert getattr(error, "status_code", 0) != 499
    assert guard_fault(error) == Fault(kind, status=status)
    assert guard_fault(ValueError()) is None
