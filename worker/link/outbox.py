"""What waits to be written to Redis beside the counts: fault lines, probe results, sessions.

Rule: every queue has a bound, what falls out is counted, and nothing leaves before its write succeeded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from supervisor.wire.codec import encode
from supervisor.wire.keys import BY_NAME, FIELD, KeyNameError, Keys
from supervisor.wire.messages import FaultEvent, ProbeResult, SessionInfo
from worker.link.redis_wire import Command

MAX_FAULTS: Final = 1_000
MAX_RESULTS: Final = 100
MAX_SESSIONS: Final = 2_000
_BATCH: Final = 200  # a round trip stays below about 100 KiB

_RESULTS, _FAULTS, _ENDED = range(3)  # the queues, as counted in a round

T = TypeVar("T")


class Outbox:
    """`commands(now_ms, all_sessions)` gives the writes of one round, `sent()` forgets them."""

    def __init__(self, keys: Keys, worker: str) -> None:
        self._keys = keys
        self._inbox = keys.inbox(worker)
        self._faults: deque[FaultEvent] = deque()
        self._results: deque[ProbeResult] = deque()
        self._live: dict[str, SessionInfo] = {}
        self._dirty: set[str] = set()
        self._ended: deque[SessionInfo] = deque()
        self.dropped_faults = 0
        self.dropped_sessions = 0
        self._taken = [0, 0, 0]  # how many of each queue are in the round under way
        self._written: dict[str, SessionInfo] = {}
        self.on_result: Callable[[], None] = _nothing

    def __len__(self) -> int:
        return len(self._faults) + len(self._results) + len(self._dirty) + len(self._ended)

    @property
    def sessions(self) -> int:
        """Calls that are live now."""
        return len(self._live)

    def fault(self, event: FaultEvent) -> None:
        """The newest is kept when there are too many: what happens now matters more than an hour ago."""
        self.dropped_faults += self._make_room(_FAULTS, self._faults, MAX_FAULTS)
        self._faults.append(event)

    def result(self, result: ProbeResult) -> None:
        self._make_room(_RESULTS, self._results, MAX_RESULTS)
        self._results.append(result)
        self.on_result()

    def session(self, info: SessionInfo) -> bool:
        """Keep a session's newest record. False when its id cannot be part of a key, or there are too many."""
        try:
            self._keys.session(info.session)
        except KeyNameError:
            self.dropped_sessions += 1
            return False
        if info.ended_at_ms:
            self._live.pop(info.session, None)
            self._dirty.discard(info.session)
            self.dropped_sessions += self._make_room(_ENDED, self._ended, MAX_SESSIONS)
            self._ended.append(info)
            return True
        if info.session not in self._live and len(self._live) >= MAX_SESSIONS:
            self.dropped_sessions += 1
            return False
        self._live[info.session] = info
        self._dirty.add(info.session)
        return True

    def _make_room(self, which: int, queue: deque[T], most: int) -> int:
        """Drop the oldest one of a full queue; how many were dropped."""
        if len(queue) < most:
            return 0
        queue.popleft()
        self._taken[which] = max(0, self._taken[which] - 1)  # it may be in the round under way
        return 1

    def live(self, session: str) -> SessionInfo | None:
        return self._live.get(session)

    def commands(self, now_ms: int, *, all_sessions: bool) -> list[Command]:
        """The writes of one round. all_sessions: every live session's record is written again (its TTL)."""
        self._taken = [min(len(queue), _BATCH) for queue in (self._results, self._faults, self._ended)]
        results, faults, ended = self._taken
        commands: list[Command] = []
        commands.extend(_xadd(self._inbox, "in:<worker>", encode(r)) for r in _first(self._results, results))
        if results:
            commands.append(("EXPIRE", self._inbox, BY_NAME["in:<worker>"].ttl_s or 120))
        stream = self._keys("faults")
        commands.extend(_xadd(stream, "faults", encode(event)) for event in _first(self._faults, faults))
        index = self._keys("sessions")
        for info in _first(self._ended, ended):
            commands.append(_xadd(self._keys("sessions:ended"), "sessions:ended", encode(info)))
            commands.append(("DEL", self._keys.session(info.session)))
            commands.append(("ZREM", index, info.session))
        names = list(self._live) if all_sessions else list(self._dirty)[:_BATCH]
        self._written = {name: self._live[name] for name in names if name in self._live}
        for name, info in self._written.items():
            key = self._keys.session(name)
            commands.append(("HSET", key, FIELD, encode(info)))
            commands.append(("EXPIRE", key, BY_NAME["session:<session>"].ttl_s or 15))
            commands.append(("ZADD", index, now_ms, name))
        return commands

    def sent(self) -> None:
        """The commands of the last round were answered."""
        for queue, count in zip((self._results, self._faults, self._ended), self._taken, strict=True):
            for _ in range(min(count, len(queue))):
                queue.popleft()
        self._taken = [0, 0, 0]
        for name, info in self._written.items():
            if self._live.get(name) is info:
                self._dirty.discard(name)
        self._written = {}


def _first(queue: deque[T], count: int) -> list[T]:
    return [queue[i] for i in range(count)]


def _xadd(key: str, spec: str, data: bytes) -> Command:
    return ("XADD", key, "MAXLEN", "~", BY_NAME[spec].max_len or 1_000, "*", FIELD, data)


def _nothing() -> None:
    return None
