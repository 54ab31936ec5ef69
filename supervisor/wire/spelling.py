"""Environment variables that look like a setting written wrongly. Shared by both packages' settings. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# One slip in a name of usual length; other programs' variables with our prefix are further away.
_CLOSE = 0.88


def misspelt(names: Iterable[str], prefix: str, known: Iterable[str]) -> list[str]:
    """One line for each of `names` that begins with `prefix`, is not `known`, and is close to one that is.

    known: whole names.
    """
    right = set(known)
    lines: list[str] = []
    for name in sorted(names):
        if not name.startswith(prefix) or name in right:
            continue
        close = difflib.get_close_matches(name, right, n=1, cutoff=_CLOSE)
        if close:
            lines.append(f"{name}: there is no such setting; did you mean {close[0]}?")
    return lines
