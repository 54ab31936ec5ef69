"""What the stand-in models say: deterministic, every word of an answer different, so each can be checked.

Nothing here does I/O, and nothing is random: the same messages give the same answer.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

__all__ = ["Answer", "ContinueMode", "answer_for", "plan_answer"]

ContinueMode = Literal["continue", "repeat3", "restart"]
"""How a model goes on after a cut: from there, with the last three words again, or from the beginning."""

_VOCABULARY = """
amber anchor apple arrow autumn badge baker basket beacon bridge bright brook butter cabin camel candle
canyon carpet castle cedar cherry circle cloud clover cobalt copper coral cotton cradle crystal daisy
dancer desert diamond dolphin dragon eagle early ember engine evening fabric falcon feather fiddle field
flame forest fossil fountain galaxy garden garnet gentle ginger glacier golden granite guitar hammer
harbor harvest hazel helmet honey horizon island ivory jacket jasmine jungle kettle kitten ladder lagoon
lantern lemon letter linen lobster magnet maple marble meadow melody mirror morning mountain needle nickel
ocean olive onion orange orchid otter oyster paddle palace panda paper parrot pebble pencil pepper pillow
planet pocket pollen poplar potato prairie pumpkin purple puzzle quartz quiet rabbit rainbow raven ribbon
river rocket saddle saffron sailor salmon sandal scarlet season shadow silver simple sister sparrow spider
spring square station stone summer sunset table temple thunder tiger timber tomato tower travel trumpet
tulip tunnel turtle valley velvet village violet walnut water whisper willow window winter wizard yellow
zebra zephyr
"""
_WORDS = _VOCABULARY.split()
_TOOL = re.compile(r"\b(talk and )?use tool ([A-Za-z_][\w.-]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Text to say, or one tool to call; both where a user says "talk and use tool x"."""

    text: str = ""
    tool: str = ""
    arguments: str = ""
    """JSON."""


def answer_for(text: str, *, salt: str = "", shortest: int = 12, longest: int = 25) -> str:
    """The answer to what a user said: 12 to 25 different words in sentences of five to eight."""
    digest = hashlib.sha256(f"{' '.join(text.split())}\x00{salt}".encode()).digest()
    chance = random.Random(digest)
    words = chance.sample(_WORDS, chance.randint(shortest, longest))
    sentences: list[str] = []
    while words:
        size = chance.randint(5, 8)
        if len(words) - size < 4:
            size = len(words)
        sentence, words = words[:size], words[size:]
        sentences.append(" ".join([sentence[0].capitalize(), *sentence[1:]]) + ".")
    return " ".join(sentences)


def plan_answer(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    mode: ContinueMode = "continue",
    salt: str = "",
    shortest: int = 12,
    longest: int = 25,
) -> Answer:
    """What a model answers to Chat Completions messages: a tool call, a continuation, or an answer."""
    last_user = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=-1)
    text = content_text(messages[last_user]) if last_user >= 0 else ""
    after = messages[last_user + 1 :]
    full = answer_for(text, salt=salt, shortest=shortest, longest=longest)
    partial = _partial(after)
    said = _continued(full, partial, mode) if partial else full
    if not any(message.get("role") == "tool" for message in after) and (call := _tool_call(text, tools)):
        return replace(call, text=said) if call.text else call
    return Answer(text=said)


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content may be a string or a list of parts."""
    content: object = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = cast("list[object]", content)
    texts = [cast("dict[str, object]", part).get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def _tool_call(text: str, tools: Sequence[Mapping[str, Any]]) -> Answer | None:
    """The call; with any text where some is to be said first."""
    wanted = _TOOL.search(text)
    if wanted is None:
        return None
    name = wanted.group(2).rstrip(".-")
    for tool in tools:
        function = cast("dict[str, Any]", tool.get("function") or {})
        if function.get("name") == name:
            arguments = _arguments(cast("dict[str, Any]", function.get("parameters") or {}))
            return Answer(text=wanted.group(1) or "", tool=name, arguments=arguments)
    return None


def _arguments(schema: Mapping[str, Any]) -> str:
    """The smallest arguments that fit a JSON schema's required properties, as JSON."""
    import json

    samples: dict[str, object] = {
        "string": "amber",
        "integer": 1,
        "number": 1.5,
        "boolean": True,
        "array": [],
        "object": {},
    }
    properties = cast("dict[str, dict[str, Any]]", schema.get("properties") or {})
    filled: dict[str, object] = {}
    for name in cast("list[str]", schema.get("required") or []):
        property_ = properties.get(name, {})
        choices = cast("list[object]", property_.get("enum") or [])
        kind = property_.get("type")
        filled[name] = choices[0] if choices else samples.get(kind if isinstance(kind, str) else "")
    return json.dumps(filled)


def _partial(after: Sequence[Mapping[str, Any]]) -> str:
    """The assistant's cut-off words, when a system message asks for the rest of them; else ""."""
    asked = any(
        message.get("role") in ("system", "developer")
        and "cut off" in (said := content_text(message).lower())
        and "continue" in said
        for message in after
    )
    said = [content_text(message) for message in after if message.get("role") == "assistant"]
    return " ".join(" ".join(said).split()) if asked else ""


def _continued(full: str, partial: str, mode: ContinueMode) -> str:
    words, begun = full.split(), partial.split()
    known = 0
    while known < min(len(words), len(begun)) and words[known] == begun[known]:
        known += 1
    start = {"continue": known, "repeat3": max(0, known - 3), "restart": 0}[mode]
    return " ".join(words[start:])
