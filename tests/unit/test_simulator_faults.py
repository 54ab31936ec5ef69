"""Faults: what is accepted, which request each hits, and what the ledger remembers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.simulator.errors import cartesia_event, http_error
from worker.simulator.faults import Fault, FaultBook, FaultError, parse_fault
from worker.simulator.ledger import Ledger, as_json


@pytest.mark.parametrize(
    ("role", "provider", "body", "sentence"),
    [
        ("ear", "groq", {"fault": "ok"}, "no role 'ear'"),
        ("llm", "acme", {"fault": "ok"}, "no stand-in for 'acme'"),
        ("llm", "cartesia", {"fault": "ok"}, "cartesia does not serve llm"),
        ("llm", "groq", [], "must be a JSON object"),
        ("llm", "groq", {}, "'fault' is missing"),
        ("llm", "groq", {"fault": "explode"}, "cannot be read: Invalid enum value 'explode'"),
        ("llm", "groq", {"fault": "ok", "shar": 1}, "unknown field `shar`"),
        ("llm", "groq", {"fault": "silent"}, "'silent' does not apply to llm"),
        ("check", "groq", {"fault": "cut"}, "'cut' does not apply to check"),
        ("llm", "groq", {"fault": "status", "status": 200}, "400 to 599"),
        ("llm", "groq", {"fault": "status", "status": "429"}, "Expected `int`"),
        ("llm", "groq", {"fault": "hang", "share": 1.5}, "0 to 1"),
        ("llm", "groq", {"fault": "cut", "after_chunks": -1}, "0 to 10000"),
        ("llm", "groq", {"fault": "slow", "delay_s": -1}, "0 to 3600"),
        ("llm", "groq", {"fault": "status", "retry_after": 1e9}, "0 to 86400"),
    ],
)
def test_a_wrong_fault_is_refused_in_one_sentence(role: str, provider: str, body: Any, sentence: str) -> None:
    with pytest.raises(FaultError) as caught:
        parse_fault(role, provider, body)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_right_fault_is_read() -> None:
    body = {"fault": "status", "status": 429, "retry_after": 10, "share": 0.5}
    assert parse_fault("tts", "cartesia", body) == Fault(
        fault="status", status=429, retry_after=10.0, share=0.5
    )


@given(st.floats(0, 1), st.integers(1, 300))
def test_a_share_is_spread_evenly(share: float, count: int) -> None:
    book = FaultBook()
    book.set("llm", "groq", "", Fault(fault="hang", share=share))
    hits = [book.pick("llm", "groq", "m").fault == "hang" for _ in range(count)]
    for number in range(1, count + 1):
        assert abs(sum(hits[:number]) - share * number) <= 1 + 1e-6


def test_a_quarter_is_every_fourth() -> None:
    book = FaultBook()
    book.set("llm", "groq", "", Fault(fault="hang", share=0.25))
    assert [book.pick("llm", "groq", "m").fault for _ in range(8)] == ["ok", "ok", "ok", "hang"] * 2


def test_a_model_goes_before_its_provider() -> None:
    book = FaultBook()
    book.set("llm", "groq", "", Fault(fault="hang"))
    book.set("llm", "groq", "a/b", Fault(fault="ok"))
    assert book.pick("llm", "groq", "a/b").fault == "ok"
    assert book.pick("llm", "groq", "other").fault == "hang"
    assert book.pick("stt", "groq", "other").fault == "ok"
    assert [item["model"] for item in book.items()] == [None, "a/b"]
    book.clear("llm", "groq", "a/b")
    assert book.pick("llm", "groq", "a/b").fault == "hang"
    book.set("llm", "groq", "", Fault())
    assert book.items() == []


def test_the_ledger_is_bounded_and_filters() -> None:
    ledger = Ledger(capacity=5)
    for number in range(8):
        ledger.open("chat", "llm", "groq" if number % 2 else "openai", f"m{number}")
    assert [item.model for item in ledger.select()] == ["m3", "m4", "m5", "m6", "m7"]
    assert [item.model for item in ledger.select(provider="groq")] == ["m3", "m5", "m7"]
    assert [item.model for item in ledger.select(limit=2)] == ["m6", "m7"]
    assert ledger.select(role="stt") == []
    assert ledger.select(since=ledger.select()[0].at + 10_000) == []
    shown: Any = as_json(ledger.select())
    assert sum(shown["per_second"].values()) == 5
    ledger.clear()
    assert ledger.select() == []


def test_only_the_first_end_counts() -> None:
    request = Ledger().open("chat", "llm", "groq", "m")
    request.end("abandoned")
    request.end("ok")
    assert request.outcome == "abandoned"


def test_errors_are_the_providers_own() -> None:
    limited = http_error("groq", 429, model="m", retry_after=7)
    assert limited.headers["retry-after"] == "7"
    assert b'"rate_limit_exceeded"' in limited.body
    assert b"try again in 7s" in limited.body
    assert "retry-after" not in http_error("groq", 500).headers
    assert b"capacity_exceeded" in http_error("groq", 498).body
    assert b"invalid_api_key" in http_error("openai", 401).body
    assert http_error("cartesia", 401).content_type == "text/plain"
    assert b"concurrency_limited" in http_error("cartesia", 429, version="2026-03-01").body
    assert cartesia_event("whisper", 503)["code"] == 503
    assert cartesia_event("turns", 429)["error_code"] == "concurrency_limited"
    assert "error_code" not in cartesia_event("tts", 429, version="2025-04-16")
