"""Answers: the same every time, every word once, and continued as asked."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.simulator.answers import Answer, ContinueMode, answer_for, plan_answer

CONTINUE = {"role": "system", "content": "You were cut off; continue."}


@given(st.text())
def test_an_answer_has_different_words_and_is_repeatable(text: str) -> None:
    answer = answer_for(text)
    said = answer.lower().replace(".", "").split()
    assert 12 <= len(said) <= 25
    assert len(set(said)) == len(said)
    assert answer_for(f"  {text} ") == answer
    assert answer.endswith(".")
    assert answer_for(text, salt="other") != answer


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


@given(st.integers(0, 25), st.sampled_from(["continue", "repeat3", "restart"]))
def test_a_continuation_starts_where_it_should(known: int, mode: ContinueMode) -> None:
    whole = answer_for("Why?").split()
    known = min(known, len(whole) - 1)
    partial = {"role": "assistant", "content": " ".join(whole[:known])}
    plan = plan_answer([user("Why?"), partial, CONTINUE], mode=mode)
    start = {"continue": known, "repeat3": max(0, known - 3), "restart": 0}[mode]
    assert plan.text.split() == whole[start:]


def test_an_unfinished_last_word_is_said_again() -> None:
    whole = answer_for("Why?").split()
    partial = {"role": "assistant", "content": " ".join([*whole[:4], whole[4][:2]])}
    assert plan_answer([user("Why?"), partial, CONTINUE]).text.split() == whole[4:]


def test_an_old_answer_is_not_a_partial_one() -> None:
    messages = [user("Who?"), {"role": "assistant", "content": "Me."}, user("Why?")]
    assert plan_answer(messages).text == answer_for("Why?")


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "properties": {
                "city": {"type": "string"},
                "kind": {"enum": ["a", "b"]},
                "deep": {"type": "boolean"},
            },
            "required": ["city", "kind", "deep"],
        },
    },
}


def test_a_named_tool_is_called_once() -> None:
    asked = user("Now use tool look_up.")
    plan = plan_answer([asked], [TOOL])
    assert plan.tool == "look_up"
    assert json.loads(plan.arguments) == {"city": "amber", "kind": "a", "deep": True}
    done: list[dict[str, Any]] = [
        asked,
        {"role": "assistant", "tool_calls": [{}]},
        {"role": "tool", "content": "fine"},
    ]
    assert plan_answer(done, [TOOL]) == Answer(text=answer_for("Now use tool look_up."))
    assert plan_answer([asked], []).text


def test_a_tool_is_called_after_some_words_if_wished() -> None:
    asked = user("Talk and use tool look_up.")
    plan = plan_answer([asked], [TOOL])
    assert (plan.text, plan.tool) == (answer_for("Talk and use tool look_up."), "look_up")
    rest = plan_answer([asked, {"role": "assistant", "content": plan.text}, CONTINUE], [TOOL])
    assert (rest.text, rest.tool) == ("", "look_up")
