"""Directives: orders of the leader to this worker, each given on once.

The stream is read from a cursor; after a reconnection or a jump of Redis TIME from its start (at most 100
entries), because a Redis that failed over may number lower than before. So every id is remembered for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import structlog

from supervisor.wire.codec import decode
from supervisor.wire.errors import WireError
from supervisor.wire.messages import Directive
from worker.link.redis_wire import Answer
from worker.link.rounds import Round

_log = structlog.get_logger("worker.link")

_SEEN: Final = 256  # more than the stream may hold
_AT_ONCE: Final = 20


class Directives:
    """`give(directive)` gets each one that is not older than `since_ms` (Redis TIME: this worker's start)."""

    def __init__(self, key: str, give: Callable[[Directive], None]) -> None:
        self._key = key
        self._give = give
        self._cursor = "0-0"
        self._seen: dict[str, None] = {}
        self.since_ms = 0
        self.epoch = 0  # lower ones come from a leader of the past

    def rewind(self) -> None:
        """Look at all of the stream again."""
        self._cursor = "0-0"

    def add_to(self, round_: Round) -> None:
        round_.add("XREAD", "COUNT", _AT_ONCE, "STREAMS", self._key, self._cursor, to=self._take)

    def _take(self, answer: Answer) -> None:
        for _, entries in cast("list[tuple[bytes, list[tuple[bytes, list[bytes]]]]]", answer or []):
            for entry_id, flat in entries:
                self._cursor = entry_id.decode()
                try:
                    directive = decode(flat[1], Directive)
                except (WireError, IndexError):
                    _log.warning("directive not read", action="link.directive.unreadable")
                    continue
                self._take_one(directive)

    def _take_one(self, directive: Directive) -> None:
        if directive.id in self._seen:
            return
        self._seen[directive.id] = None
        while len(self._seen) > _SEEN:
            del self._seen[next(iter(self._seen))]
        if directive.issued_at_ms >= self.since_ms and directive.epoch >= self.epoch:
            self._give(directive)
