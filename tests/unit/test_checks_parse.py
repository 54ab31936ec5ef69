"""What is read out of providers' answers, whatever they send."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.checks.parse import MAX_DETAIL, parse_answer, parse_summary
from supervisor.checks.providers import Source, looks
from supervisor.checks.record import CheckRecord, decode, encode
from supervisor.settings import read_settings

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("indicator", "ok"),
    [
        ("none", True),
        ("minor", True),
        ("maintenance", True),
        ("major", False),
        ("critical", False),
        ("x", None),
        (7, None),
    ],
)
def test_only_major_and_critical_speak_against_a_provider(indicator: object, ok: bool | None) -> None:
    hint = parse_summary({"status": {"indicator": indicator, "description": "Some words"}})
    assert hint.ok is ok


def test_open_incidents_are_named_and_resolved_ones_are_not() -> None:
    data = {
        "status": {"indicator": "major", "description": "Partial outage"},
        "incidents": [
            {"name": "Slow\nresponses", "status": "investigating"},
            {"name": "Old", "status": "resolved"},
        ],
    }
    assert parse_summary(data).detail == "major: Partial outage; Slow responses"


@given(JSON)
def test_nothing_in_a_status_page_breaks_the_reader(data: Any) -> None:
    for shape in (
        data,
        {"status": data},
        {"status": {"indicator": data}},
        {"status": {"indicator": "none"}, "incidents": data},
    ):
        hint = parse_summary(shape)
        assert len(hint.detail) <= MAX_DETAIL
        assert hint.detail.isprintable()


@pytest.mark.parametrize(
    ("status", "ok"),
    [
        (200, True),
        (204, True),
        (401, False),
        (402, False),
        (403, False),
        (404, None),
        (429, True),
        (498, False),
        (500, False),
        (302, None),
    ],
)
def test_statuses_of_the_cheap_endpoints(status: int, ok: bool | None) -> None:
    assert parse_answer(status).ok is ok


def test_a_body_that_says_it_is_not_ok_is_believed() -> None:
    assert parse_answer(200, {"ok": False}).ok is False
    assert parse_answer(200, {"ok": True}).ok is True


def test_only_providers_whose_key_is_known_are_asked_and_no_key_is_in_a_repr() -> None:
    settings = read_settings(
        groq_api_key="gsk-very-secret", cartesia_api_key=None, openai_api_key="", deepgram_api_key="dg-secret"
    )
    wanted = looks(settings)
    assert {(look.provider, look.source) for look in wanted} == {
        ("groq", Source.API),
        ("groq", Source.STATUS_PAGE),
        ("deepgram", Source.API),
        ("deepgram", Source.STATUS_PAGE),
    }
    assert "secret" not in repr(wanted)
    by_name = {(look.provider, look.source): look for look in wanted}
    assert by_name["deepgram", Source.API].headers == {"Authorization": "Token dg-secret"}
    assert by_name["groq", Source.STATUS_PAGE].headers == {}


@given(st.binary(max_size=200))
def test_any_bytes_in_the_hash_are_a_record_or_none(raw: bytes) -> None:
    found = decode(raw)
    assert found is None or isinstance(found, CheckRecord)


def test_a_record_survives_its_own_encoding() -> None:
    record = CheckRecord("groq", "api", ok=None, detail="x", at_ms=1)
    assert decode(encode(record)) == record
