"""Target ids, keys and the table of fault kinds: closed, bounded, reversible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.wire.keys import KEYS, KeyNameError, Keys, spec_of
from supervisor.wire.targets import (
    TargetError,
    escape_path,
    key_hash,
    make_target,
    parse_target,
    unescape_path,
)
from supervisor.wire.vocabulary import KIND_RULES, CountsAgainst, FaultKind, Role

models = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30)


@given(st.sampled_from(Role), models)
def test_an_id_comes_apart_as_it_was_made(role: Role, model: str) -> None:
    target = parse_target(make_target(role, "groq", model))
    assert (target.role, target.provider, target.model) == (role, "groq", model)


@given(models)
def test_an_id_is_one_path_segment_and_comes_back(model: str) -> None:
    target = make_target("llm", "groq", model)
    segment = escape_path(target)
    assert "/" not in segment
    assert unescape_path(segment) == target


@pytest.mark.parametrize(
    "bad",
    ["", "llm", "llm:groq", "llm::model", ":groq:m", "vad:groq:m", "llm:gr/oq:m", "llm:groq:a\nb",
     "llm:groq:" + "x" * 200, "llm:" + "p" * 65 + ":m", "llm:groq:" + "é" * 100],
)  # fmt: skip
def test_what_is_no_id_is_refused(bad: str) -> None:
    with pytest.raises(TargetError):
        parse_target(bad)


def test_slashes_colons_and_unicode_may_be_in_a_model() -> None:
    assert parse_target("tts:groq:canopylabs/orpheus:v1-é").model == "canopylabs/orpheus:v1-é"


def test_every_key_of_a_fleet_is_in_the_table_and_no_other_is() -> None:
    keys = Keys("demo")
    made = [
        keys.inbox("w.1"),
        keys.directive("w"),
        keys.worker("w"),
        keys.session("s"),
        keys.reply("c"),
        keys.limit("l"),
    ]
    made += [keys.history("llm:groq:m")] + [keys(spec.name) for spec in KEYS if "<" not in spec.name]
    assert {spec.name for spec in map(spec_of, made) if spec} == {spec.name for spec in KEYS}
    assert all(key.startswith("sv:v1:{demo}:") for key in made)
    assert spec_of("sv:v1:{demo}:surprise") is None


def test_every_key_has_a_bound() -> None:
    assert [s.name for s in KEYS if s.max_len is None and s.ttl_s is None] == [
        "wake"
    ]  # a channel holds nothing


@pytest.mark.parametrize("name", ["", "A", "a b", "a:b", "{x}", "x" * 64, "-a"])
def test_a_fleet_name_that_would_break_keys_is_refused(name: str) -> None:
    with pytest.raises(KeyNameError):
        Keys(name)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "*", "x" * 129, "a\n"])
def test_a_worker_name_that_would_break_keys_is_refused(name: str) -> None:
    with pytest.raises(KeyNameError):
        Keys("demo").inbox(name)


def test_key_hashes_are_stable_and_differ() -> None:
    assert key_hash("llm:groq:m") == key_hash("llm:groq:m") != key_hash("llm:groq:n")
    assert len(key_hash("llm:groq:m")) == 16


def test_every_fault_kind_says_what_it_counts_against() -> None:
    assert set(KIND_RULES) == set(FaultKind)
    nothing = {k for k, r in KIND_RULES.items() if r.counts is CountsAgainst.NOTHING}
    assert nothing == {FaultKind.LOCAL, FaultKind.BAD_REQUEST}
    assert KIND_RULES[FaultKind.UNKNOWN].counts is CountsAgainst.HEALTH
