"""Nothing that must stay in the worker gets out of it in a message."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.guard.redact import MAX_OUT, redact

ALNUM = string.ascii_letters + string.digits


def _key(prefix: str, letters: str, least: int, most: int) -> st.SearchStrategy[str]:
    # A key without a single digit does not happen: 20 of 62 letters without one is 1 in 30, but see the test below.
    body = st.text(letters, min_size=least, max_size=most).filter(lambda k: any(c.isdigit() for c in k[:12]))
    return body.map(lambda k: prefix + k)


KEYS = st.one_of(
    _key("gsk_", ALNUM, 52, 52),
    _key("sk-", ALNUM, 40, 51),
    _key("sk-proj-", ALNUM + "-_", 60, 150),
    _key("sk_car_", ALNUM, 20, 24),
    _key("", string.hexdigits.lower(), 40, 40),
    _key("", ALNUM, 24, 64),
    st.uuids().map(str),
)


@given(key=KEYS, before=st.text(max_size=60), after=st.text(max_size=60))
@example(key="gsk_" + "a1" * 26, before='"', after='"')
@example(key="sk_car_" + "a1" * 10, before="https://api.x.ai/?api_key=", after="&model=1")
@example(key="a1" * 20, before="Authorization: Token ", after="")
@example(key="a1" * 20, before="x" * 3990, after="")
def test_a_key_put_anywhere_does_not_survive(key: str, before: str, after: str) -> None:
    out = redact(f"{before}{key}{after}")
    assert key not in out
    # Nor does a part long enough to be of use.
    assert not any(key[i : i + 16] in out for i in range(len(key) - 16))


@given(key=st.text(min_size=4, max_size=80), before=st.text(max_size=60), after=st.text(max_size=60))
def test_a_known_secret_does_not_survive_whatever_it_looks_like(key: str, before: str, after: str) -> None:
    marks = {"[key]", "[text]", "[email]", "[number]", "?[query]"}
    if any(key in mark for mark in marks):
        return
    assert key not in redact(f"{before} {key} {after}", [key])


@given(st.text(max_size=6000))
def test_one_short_printable_line_always(text: str) -> None:
    out = redact(text)
    assert len(out) <= MAX_OUT
    assert "\n" not in out
    assert "\x00" not in out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Incorrect API key provided: sk-proj-********abcd. See https://platform.openai.com/account?key=abc123",
            "Incorrect API key provided: [key] See https://platform.openai.com/account?[query]",
        ),
        (
            "Limit 12000, Used 11800 for model `llama-3.3-70b-versatile`. Please try again in 3.5s.",
            "Limit 12000, Used 11800 for model `llama-3.3-70b-versatile`. Please try again in 3.5s.",
        ),
        ("The model `foo-bar` does not exist", "The model `foo-bar` does not exist"),
        ("You didn't provide an API key. You don't", "You didn't provide an API key. You don't"),
        ("Invalid input: 'hello my name is bob' refused", "Invalid input: [text] refused"),
        ("call +1 (415) 555-2671 or bob@example.com", "call [number] or [email]"),
        ("card 4111 1111 1111 1111", "card [number]"),
        ("https://user:pa55@host/path", "https://[key]@host/path"),
        ("Authorization: Bearer gsk_abcdEFGH1234abcdEFGH1234", "Authorization [key]"),
        ("a\n\tb", "a b"),
        ("", ""),
    ],
)
def test_what_stays_readable(text: str, expected: str) -> None:
    assert redact(text) == expected
