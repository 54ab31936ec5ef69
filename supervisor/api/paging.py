"""Pages of lists: `?limit=&cursor=`, answers `{"items": […], "next": cursor or null}`.

Cursors are opaque to callers: whatever names the last item, in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from supervisor.api.problems import Problem
from supervisor.api.records import is_stream_id

MAX_LIMIT = 500
DEFAULT_LIMIT = 100

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items in a page, at most.")]
Cursor = Annotated[
    str | None, Query(max_length=400, description="`next` of the page before; without it the first page.")
]


def make_cursor(last: str) -> str:
    """The cursor after the item that `last` names."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str:
    """What a cursor names; "" without one. A cursor that was not made here is a 400."""
    if not cursor:
        return ""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise Problem(
            400, "bad-cursor", "the cursor is not one of ours", remedy="begin again without cursor"
        ) from None


def page_of(
    items: Sequence[T], key: Callable[[T], str], cursor: str | None, limit: int
) -> tuple[list[T], str | None]:
    """A page of a list that is wholly at hand and has unique keys; the order of `items` is kept.

    When the item that the cursor names has gone, the page begins anew rather than being lost.
    """
    last = read_cursor(cursor)
    start = 0
    if last:
        start = next((at + 1 for at, item in enumerate(items) if key(item) == last), 0)
    page = list(items[start : start + limit])
    more = start + limit < len(items)
    return page, (make_cursor(key(page[-1])) if more and page else None)


def read_stream_cursor(cursor: str | None) -> str:
    """The stream id that a cursor names; "" without one. Raises `Problem` 400 for any other cursor."""
    last = read_cursor(cursor)
    if last and not is_stream_id(last):
        raise Problem(
            400, "bad-cursor", "the cursor belongs to another list", remedy="begin again without cursor"
        )
    return last
