"""The REST face's pure parts: hosts, origins, ETags, cursors, times, histograms, incidents, merged streams."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from supervisor.api.auth import Principal, digest, host_name, is_loopback, new_token
from supervisor.api.base import iso
from supervisor.api.etags import check_if_match, etag
from supervisor.api.incidents.service import fold, represent
from supervisor.api.paging import make_cursor, page_of, read_cursor, read_stream_cursor
from supervisor.api.problems import Problem
from supervisor.api.records import id_order
from supervisor.api.security import check_origin, cookie_token
from supervisor.api.stream.hub import Cursor, merge
from supervisor.api.targets.history import quantile_ms
from supervisor.web.render import age
from supervisor.wire.codec import encode
from supervisor.wire.messages import Event
from supervisor.wire.vocabulary import HISTOGRAM_BUCKETS, TokenRole


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:80", "localhost"),
        ("LOCALHOST", "localhost"),
        ("[::1]:8080", "::1"),
        ("::1", "::1"),
        ("a.b:1", "a.b"),
        ("", ""),
    ],
)
def test_host_names(header: str, name: str) -> None:
    assert host_name(header) == name


def test_what_is_this_machine() -> None:
    for ours in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"):
        assert is_loopback(ours), ours
    for other in ("localhost.evil", "127.0.0.1.evil", "0.0.0.0", "", "10.0.0.1", "::ffff:10.0.0.1"):
        assert not is_loopback(other), other


def test_roles_include_the_ones_before() -> None:
    operator = Principal("x", TokenRole.OPERATOR)
    assert [operator.may(role) for role in (TokenRole.VIEWER, TokenRole.OPERATOR, TokenRole.ADMIN)] == [
        True,
        True,
        False,
    ]


def test_tokens_are_long_and_differ() -> None:
    one, two = new_token(), new_token()
    assert one != two
    assert len(one) >= 43
    assert digest(one) != digest(two)
    assert len(digest("\ud800")) == 64


@given(
    st.dictionaries(
        st.sampled_from(["origin", "sec-fetch-site", "host", "cookie"]),
        st.text(st.characters(max_codepoint=255), max_size=60),
    )
)
def test_no_header_breaks_the_guards(raw: dict[str, str]) -> None:
    headers = Headers(raw)
    with contextlib.suppress(Problem):  # anything else would be a 500
        check_origin(headers)
    assert cookie_token(headers) is None or "supervisor_token" in raw["cookie"]


def test_if_match() -> None:
    check_if_match(None, None)
    check_if_match(None, etag(1))
    check_if_match('"1"', etag(1))
    check_if_match('"7", "1"', etag(1))
    check_if_match("*", etag(1))
    check_if_match(None, None, required=True)
    for given_, current, required, status in (
        ('"2"', etag(1), False, 412),
        ("*", None, False, 412),
        (None, etag(1), True, 428),
        ('W/"1"', etag(1), False, 412),
    ):
        with pytest.raises(Problem) as caught:
            check_if_match(given_, current, required=required)
        assert caught.value.status == status


@given(st.text(min_size=1, max_size=50))
def test_a_cursor_reads_back(last: str) -> None:
    assert read_cursor(make_cursor(last)) == last


@given(st.text(max_size=50))
def test_any_other_cursor_is_refused_or_harmless(text: str) -> None:
    for reader in (read_cursor, read_stream_cursor):
        with contextlib.suppress(Problem):  # anything else would be a 500
            assert isinstance(reader(text), str)


@given(st.lists(st.text(min_size=1, max_size=5), unique=True), st.integers(1, 7))
def test_pages_give_every_item_once_and_in_order(items: list[str], limit: int) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = page_of(items, str, cursor, limit)
        assert len(page) <= limit
        seen.extend(page)
        if cursor is None:
            break
    assert seen == items


def test_times() -> None:
    assert iso(0) is None
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert iso(2**62) is None
    assert [age(0, 9), age(1_000, 2_500), age(1_000, 181_000), age(5_000, 1_000)] == [
        "-",
        "1 s",
        "3 min",
        "0 s",
    ]


def test_quantiles_of_first_outputs() -> None:
    histogram = [0] * HISTOGRAM_BUCKETS
    assert quantile_ms(histogram, 0.5) is None
    histogram[2] = 90
    histogram[-1] = 10
    assert quantile_ms(histogram, 0.5) == 100
    assert quantile_ms(histogram, 0.95) == 20_000


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.integers(0, 3)), unique=True, max_size=40))
def test_two_streams_are_merged_in_order_and_the_cursor_is_where_both_are(
    rows: list[tuple[bool, int, int]],
) -> None:
    body = {b"m": encode(Event(1, "verdict"))}
    events = sorted((f"{ms}-{n}" for is_event, ms, n in rows if is_event), key=id_order)
    faults = sorted((f"{ms}-{n}" for is_event, ms, n in rows if not is_event), key=id_order)
    messages = merge(Cursor(), [(i, body) for i in events], [(i, {b"m": b"\x01bad"}) for i in faults])
    assert len(messages) == len(rows)
    for before, after in itertools.pairwise(messages):
        assert id_order(before.cursor.events) <= id_order(after.cursor.events)
        assert id_order(before.cursor.faults) <= id_order(after.cursor.faults)
    if messages:
        assert messages[-1].cursor == Cursor(events[-1] if events else "0-0", faults[-1] if faults else "0-0")
    assert [message.kind for message in messages].count("verdict") == len(events)


def test_an_event_id_reads_back_and_others_do_not() -> None:
    cursor = Cursor("17-1", "18-0")
    assert Cursor.parse(str(cursor)) == cursor
    for wrong in ("", "1-0", "a_b", "1-0_", "1-0_2-0_3-0"):
        assert Cursor.parse(wrong) is None


def test_an_incident_is_open_while_the_picture_names_it() -> None:
    entries = [
        ("2-0", Event(2_000, "verdict", "llm:a:b", "unhealthy", "ramping", "good probes", incident="i")),
        (
            "1-0",
            Event(
                1_000,
                "verdict",
                "llm:a:b",
                "healthy",
                "unhealthy",
                "7 faults",
                incident="i",
                evidence={"n": 7},
            ),
        ),
        ("0-1", Event(500, "leader")),
    ]
    (incident,) = fold(reversed(entries))
    found = represent(incident, frozenset({"i"}))
    assert (found.open, found.ended_at, found.reason, found.states) == (
        True,
        None,
        "7 faults",
        ["unhealthy", "ramping"],
    )
    found = represent(incident, frozenset())
    assert found.ended_at == "1970-01-01T00:00:02.000Z"
