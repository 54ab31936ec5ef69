"""Takes keys, tokens, addresses, numbers and quoted words out of a text before anybody else sees it.

Over-zealous on purpose: a model's name lost from a message costs a look elsewhere, a key kept costs the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_OUT: Final = 300
_MAX_IN: Final = 4000

_URL_USER: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]*@", re.IGNORECASE)
_QUERY: Final = re.compile(r"\?[^\s\"'<>]*=[^\s\"'<>]*")
_BEARER: Final = re.compile(
    r"\b(bearer|basic|token|x-api-key|api[-_ ]?key|authorization|password|secret)"
    r"(\"?'?\s*[:=]\s*\"?'?|\s+)(?:bearer\s+|basic\s+|token\s+)?[^\s\"',;]*[0-9_*-][^\s\"',;]*",
    re.IGNORECASE,
)
# A known beginning of a key, wherever it stands, and all that may belong to it.
_PREFIXED: Final = re.compile(
    r"(?:gsk|sk|pk|rk|xai|dgk?|key|api|tok|org|proj|AIza|eyJ)[-_.]?(?=[^\s]*[\d*])[\w.*-]{8,}"
)
_EMAIL: Final = re.compile(r"[^\s@<>\"'(),;:]+@[^\s@<>\"'(),;:]+\.\w+")
_BASE64: Final = re.compile(
    r"(?=[\w+/=.-]*[a-z])(?=[\w+/=.-]*[A-Z])(?=[\w+/=.-]*\d[\w+/=.-]*\d)[\w+/=.-]{24,}"
)
_HEX_RUN: Final = re.compile(r"(?:[0-9a-fA-F]{4,}-){2,}[0-9a-fA-F]{4,}")
_SEGMENT: Final = re.compile(r"(?=[A-Za-z]*\d)[A-Za-z0-9]{12,}|[A-Za-z0-9]{20,}")
_PHONE: Final = re.compile(r"\+?\(?\d(?:[\s().-]{0,2}\d){7,}")
_DIGITS: Final = re.compile(r"\d{7,}")
# Quotes around more than one word: what somebody said or wrote. An apostrophe inside a word is none.
_QUOTED: Final = re.compile(
    r"(?<!\w)(['\"`\u2018\u201c\u00ab])(?=[^'\"`\u2019\u201d\u00bb]*\s)(?:(?!\1)[^\n]|(?<=\w)\1(?=\w))+?"
    r"(?:['\"`\u2019\u201d\u00bb](?!\w)|\Z)"
)
_SPACE: Final = re.compile(r"[\s\x00-\x1f\x7f]+")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without what must not leave the process, on one line, at most 300 characters.

    secrets: values known to be secret (their parts of 8 characters and more are looked for as a whole only).
    """
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    if len(text) > _MAX_IN:
        # Half a key at the end would not be known for one.
        text = re.sub(r"\S*\Z", "", text[:_MAX_IN])
    # A provider's JSON may hold half of an emoji, which cannot be written anywhere.
    text = _SPACE.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    text = _URL_USER.sub(r"\1[key]@", text)
    text = _QUERY.sub("?[query]", text)
    text = _BEARER.sub(r"\1 [key]", text)
    text = _PREFIXED.sub("[key]", text)
    text = _EMAIL.sub("[email]", text)
    text = _HEX_RUN.sub("[key]", text)
    text = _BASE64.sub("[key]", text)
    text = _SEGMENT.sub("[key]", text)
    text = _QUOTED.sub("[text]", text)
    text = _PHONE.sub("[number]", text)
    text = _DIGITS.sub("[number]", text)
    return text if len(text) <= MAX_OUT else text[: MAX_OUT - 1] + "…"
