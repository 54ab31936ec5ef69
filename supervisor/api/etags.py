"""ETag and If-Match for what can be edited: two operators never overwrite each other unknowingly."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header

from supervisor.api.problems import Problem

IfMatch = Annotated[
    str | None,
    Header(max_length=1000, description="The ETag that the change is based on; `*` for any."),
]


def etag(version: int | str) -> str:
    """The strong ETag of a version."""
    return f'"{version}"'


def check_if_match(given: str | None, current: str | None, *, required: bool = False) -> None:
    """Compare If-Match with the ETag of what is there (None: nothing is).

    Raises `Problem`: 412 when it does not match, 428 when it is required and missing.
    """
    if given is None:
        if required and current is not None:
            raise Problem(
                428,
                "if-match-needed",
                "this exists already; say in If-Match which version you replace",
                remedy="GET it, and send its ETag in If-Match (or `*` to replace whatever is there)",
            )
        return
    wanted = [part.strip() for part in given.split(",")]
    if current is None or ("*" not in wanted and current not in wanted):
        raise Problem(
            412,
            "precondition-failed",
            "it has changed since, or does not exist",
            remedy="GET it again, look at what changed, and repeat with its ETag in If-Match",
            headers={"ETag": current} if current else None,
        )
