"""What of a model's chunks goes out, and when."""

from __future__ import annotations

from livekit.agents import llm

from worker.guard.llm_relay import Relay, Said

SIGNED = {"google": {"thought_signature": "abc"}}
USAGE = llm.CompletionUsage(completion_tokens=1, prompt_tokens=1, total_tokens=2)


def chunk(
    content: str | None = None, usage: llm.CompletionUsage | None = None, **fields: object
) -> llm.ChatChunk:
    delta = llm.ChoiceDelta.model_validate({"role": "assistant", "content": content, **fields})
    return llm.ChatChunk(id="1", delta=delta, usage=usage)


def relayed(*chunks: llm.ChatChunk) -> list[llm.ChatChunk]:
    out: list[llm.ChatChunk] = []
    relay = Relay(Said(), out.append)
    for one in chunks:
        relay.take(one)
    relay.finish()
    return out


def text_of(chunks: list[llm.ChatChunk]) -> str:
    return "".join(one.delta.content or "" for one in chunks if one.delta)


def test_what_comes_with_words_is_passed_on_once() -> None:
    for pieces in (("Hello ", "my friend."), (" ", "Hello my friend.")):
        out = relayed(*(chunk(piece, extra=SIGNED) for piece in pieces), chunk(" Bye", usage=USAGE))
        assert text_of(out) == "".join(pieces) + " Bye"
        assert [one.delta.extra for one in out if one.delta and one.delta.extra] == [SIGNED, SIGNED]
        assert [one.usage for one in out if one.usage] == [USAGE]


def test_what_comes_with_a_call_waits_for_it() -> None:
    call = llm.FunctionToolCall(name="look_up", arguments="{}", call_id="call-1")
    out = relayed(chunk("Hello "), chunk("there ", extra=SIGNED, tool_calls=[call]), chunk("you"))
    assert text_of(out) == "Hello there you"
    last = out[-1].delta
    assert last is not None
    assert last.tool_calls == [call]
    assert [one.delta.extra for one in out if one.delta and one.delta.extra] == [SIGNED]
