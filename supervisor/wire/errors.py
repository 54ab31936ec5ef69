"""Errors of the wire: one root, and what the reader should do about each."""

from __future__ import annotations


class WireError(ValueError):
    """A message could not be read. `reason` is a short stable word that metrics are labelled with."""

    reason = "malformed"


class UnknownVersion(WireError):
    """The message's version byte is not one that this build reads; count it, keep it, step over it."""

    reason = "unknown_version"


class Malformed(WireError):
    """The message is not what its type says; count it, keep it, step over it."""

    reason = "malformed"


class Oversized(WireError):
    """The message is larger than its type may be; count it, keep its start, step over it."""

    reason = "oversized"
