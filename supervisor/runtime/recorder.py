"""The engine's inputs on their way to the stream `recording`, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.store.recording import MAX_INPUTS, Timed, encode_batch

if TYPE_CHECKING:
    from supervisor.core.inputs import Input
    from supervisor.runtime.context import RuntimeCounters
    from supervisor.runtime.outbox import Outbox

# What one entry holds at most; what one leader holds back at most while Redis is away.
BATCH = 5_000
MAX_HELD = 20_000


class Recorder:
    """Bounded: when Redis is away for long, inputs are dropped and counted, never piled up."""

    def __init__(self, counters: RuntimeCounters) -> None:
        self._held: list[Timed] = []
        self._counters = counters
        self._mean = 0.0

    def add(self, now_ms: int, item: Input) -> None:
        """One input and the time it was taken at."""
        if len(self._held) < MAX_HELD:
            self._held.append((now_ms, item))
        else:
            self._counters.recording_dropped += 1

    def flush(self, outbox: Outbox) -> None:
        """Hand what is held to the outbox."""
        for at in range(0, len(self._held), BATCH):
            batch = self._held[at : at + BATCH]
            # The stream's bound counts inputs, its entries hold many: go by the mean size of the newest.
            self._mean = len(batch) if self._mean == 0 else self._mean * 0.9 + len(batch) * 0.1
            outbox.add("recording", encode_batch(batch), max_len=max(10, int(MAX_INPUTS / self._mean)))
        self._held = []
