"""Where this process's state is written down for everybody else in it."""

from __future__ import annotations

import time

from supervisor.runtime.context import ReplicaRole, Status


class StatusBoard:
    """Written by the runtime's loop, read through `status`."""

    def __init__(self, replica: str) -> None:
        now_mono = time.monotonic()
        self.replica = replica
        self.role = ReplicaRole.STARTING
        self.leader = ""
        self.epoch = 0
        self.revision = 0
        self._redis_ok = False
        self._redis_mono = now_mono
        self._loop_mono = now_mono

    def beat(self) -> None:
        """The loop came round."""
        self._loop_mono = time.monotonic()

    @property
    def loop_age_s(self) -> float:
        return time.monotonic() - self._loop_mono

    @property
    def redis_ok(self) -> bool:
        return self._redis_ok

    def redis_answered(self) -> float | None:
        """Redis answered. Gives how long it had been away, when this is the first answer since."""
        was_ok, since_mono = self._redis_ok, self._redis_mono
        self._redis_ok, self._redis_mono = True, time.monotonic()
        return None if was_ok else self._redis_mono - since_mono

    def redis_failed(self) -> bool:
        """Redis did not answer. True when this is news."""
        was_ok, self._redis_ok = self._redis_ok, False
        return was_ok

    def status(self) -> Status:
        """This moment."""
        now_mono = time.monotonic()
        return Status(
            self.role, self.replica, self.leader, self.epoch, self.revision, self._redis_ok,
            now_mono - self._redis_mono, now_mono - self._loop_mono,
        )  # fmt: skip
