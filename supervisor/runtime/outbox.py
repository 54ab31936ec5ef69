"""What the leader wants appended to streams: kept until Redis has taken it, bounded, in order."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from supervisor.store.writes import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.runtime.context import RuntimeCounters
    from supervisor.wire.keys import Keys

MAX_WAITING = 5_000
BATCH = 200


class Outbox:
    """Entries that wait. When Redis is away for long, the oldest go first and are counted."""

    def __init__(self, keys: Keys, counters: RuntimeCounters) -> None:
        self._keys = keys
        self._counters = counters
        self._waiting: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self, name: str, fields: Mapping[str, bytes | str], key: str | None = None, max_len: int | None = None
    ) -> None:
        """An entry for the stream `name`; `key` when its name has parts; `max_len` for a tighter bound."""
        if len(self._waiting) >= MAX_WAITING:
            self._counters.outbox_dropped[self._waiting.popleft().name] += 1
        self._waiting.append(Entry(name, key or self._keys(name), fields, max_len))

    def head(self, most: int = BATCH) -> list[Entry]:
        """The entries that go next; they stay until `done`."""
        return [self._waiting[at] for at in range(min(most, len(self._waiting)))]

    def done(self, count: int) -> None:
        """So many of the head were taken."""
        for _ in range(min(count, len(self._waiting))):
            self._waiting.popleft()
