"""Groq's and OpenAI's Chat Completions, streamed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
from aiohttp import web

from worker.simulator.answers import Answer, content_text, plan_answer
from worker.simulator.errors import openai_body, rate_headers
from worker.simulator.faults import Fault
from worker.simulator.ledger import Request
from worker.simulator.stand import (
    STAND,
    Stand,
    break_off,
    fail,
    hang,
    json_body,
    noted,
    provider_error,
    provider_of,
)

__all__ = ["chat_completions"]

JsonObject = dict[str, Any]


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """``POST /chat/completions``."""
    stand, provider = request.app[STAND], provider_of(request)
    body = await json_body(request) or {}
    model = str(body.get("model") or "")
    fault = stand.faults.pick("llm", provider, model)
    user = body.get("user") or body.get("safety_identifier")
    record = stand.open(request, "chat", "llm", provider, model, fault, user)
    async with noted(record):
        if (failed := await fail(request, record, fault)) is not None:
            return failed
        messages = body.get("messages")
        if not model or not isinstance(messages, list) or not messages:
            return provider_error(request, record, 400)
        answer = _answer(stand, provider, model, body, fault)
        usage = _usage(cast("list[JsonObject]", messages), answer)
        if not body.get("stream"):
            return await _whole(stand, provider, record, model, answer, usage)
        return await _stream(request, stand, provider, record, body, answer, usage, fault)


def _answer(stand: Stand, provider: str, model: str, body: JsonObject, fault: Fault) -> Answer:
    if fault.fault == "empty":
        return Answer()
    tools = cast("list[JsonObject]", body.get("tools") or []) if body.get("tool_choice") != "none" else []
    shortest, longest = stand.options.answer_words
    answer = plan_answer(
        cast("list[JsonObject]", body["messages"]),
        tools,
        mode=stand.continue_modes.get((provider, model), "continue"),
        salt=stand.options.salt(model),
        shortest=shortest,
        longest=longest,
    )
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if isinstance(limit, int) and answer.text:
        return Answer(text=" ".join(answer.text.split()[: max(1, limit)]))
    return answer


def _usage(messages: list[JsonObject], answer: Answer) -> JsonObject:
    asked = sum(len(content_text(message).split()) for message in messages)
    said = len(answer.text.split()) + (8 if answer.tool else 0)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _tool_calls(answer: Answer) -> list[JsonObject]:
    function = {"name": answer.tool, "arguments": answer.arguments}
    return [{"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}]


async def _whole(
    stand: Stand, provider: str, record: Request, model: str, answer: Answer, usage: JsonObject
) -> web.Response:
    options = stand.options
    await asyncio.sleep(options.llm_first_token_s + options.llm_token_s * len(answer.text.split()))
    record.status = 200
    record.sent_first()
    message: JsonObject = {"role": "assistant", "content": answer.text or None}
    if answer.tool:
        message["tool_calls"] = _tool_calls(answer)
    return _json(
        {
            "id": f"chatcmpl-{uuid.uuid4()}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tool else "stop"}
            ],
            "usage": usage,
        },
        provider,
    )


def _json(body: JsonObject, provider: str) -> web.Response:
    del provider  # both send the same headers
    headers = {
        "Content-Type": "application/json",
        **rate_headers(),
        "x-request-id": f"req_{uuid.uuid4().hex[:26]}",
    }
    return web.Response(body=msgspec.json.encode(body), headers=headers)


async def _deltas(stand: Stand, answer: Answer) -> AsyncIterator[JsonObject]:
    """The deltas with output, at a model's pace: a word a token."""
    options = stand.options
    await asyncio.sleep(options.llm_first_token_s)
    for number, word in enumerate(answer.text.split()):
        if number:
            await asyncio.sleep(options.llm_token_s)
        yield {"content": f" {word}" if number else word}
    if answer.tool:
        call = {**_tool_calls(answer)[0], "index": 0, "function": {"name": answer.tool, "arguments": ""}}
        yield {"tool_calls": [call]}
        half = len(answer.arguments) // 2
        for piece in (answer.arguments[:half], answer.arguments[half:]):
            await asyncio.sleep(options.llm_token_s)
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


async def _stream(
    request: web.Request,
    stand: Stand,
    provider: str,
    record: Request,
    body: JsonObject,
    answer: Answer,
    usage: JsonObject,
    fault: Fault,
) -> web.StreamResponse:
    model = record.model
    head: JsonObject = {
        "id": f"chatcmpl-{uuid.uuid4()}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **rate_headers()})
    response.headers["x-request-id"] = f"req_{uuid.uuid4().hex[:26]}"
    response.enable_chunked_encoding()

    async def send(data: JsonObject) -> None:
        await response.write(b"data: " + msgspec.json.encode(data) + b"\n\n")

    def choice(delta: JsonObject, finish: str | None = None) -> JsonObject:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    record.status = 200
    await response.prepare(request)
    breaks = fault.fault in ("cut", "status", "hang")
    sent = 0
    if not (breaks and fault.after_chunks == 0):
        async for delta in _deltas(stand, answer):
            if sent == 0:
                await send(
                    choice({"role": "assistant", "content": "" if answer.text or not answer.tool else None})
                )
            await send(choice(delta))
            record.sent_first()
            sent += 1
            if breaks and sent >= fault.after_chunks:
                break
    if breaks:
        if fault.fault == "hang":
            await hang(record)
        if fault.fault == "status":
            await send(openai_body(provider, fault.status, model, fault.retry_after, fault.code))
            await response.write_eof()
        elif fault.clean:
            await response.write_eof()
        else:
            break_off(request)
        return response
    await send(choice({}, "tool_calls" if answer.tool else "stop"))
    options: object = body.get("stream_options")
    if isinstance(options, dict) and cast("JsonObject", options).get("include_usage"):
        await send({**head, "choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response
