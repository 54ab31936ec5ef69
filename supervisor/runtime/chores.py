"""What a leader does beside deciding: the index of workers, history, recording, view, saved state, expiry."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from supervisor.core.inputs import GapSeen, WorkerLeft
from supervisor.runtime import operators
from supervisor.runtime.inboxes import FIRST, id_order
from supervisor.runtime.reign import ENGINE_FILE
from supervisor.store import reads, writes
from supervisor.store.history import HistoryPoint, decode_point, encode_point
from supervisor.store.recording import trim_recording
from supervisor.store.statedir import StateDirError
from supervisor.wire.view import encode_view

if TYPE_CHECKING:
    from supervisor.runtime.reign import Reign

log = structlog.stdlib.get_logger(__name__)

INDEX_S = 0.5
VIEW_S = 0.5
STATE_S = 1.0
RECORD_S = 0.5
EXPIRE_S = 1.0
TRIM_S = 60.0
# Links report at least once a second: who is silent for this long is looked after.
SILENT_S = 1.5
GONE_S = 3.0
MOST_LOOKED_AT = 200


class Chores:
    """Each has its own next time; `run` does what is due."""

    def __init__(self, reign: Reign) -> None:
        self._reign = reign
        self._due: dict[str, float] = {}
        self._file: asyncio.Task[None] | None = None
        self._file_failed = False

    def _is_due(self, name: str, every_s: float, now_mono: float) -> bool:
        if now_mono < self._due.get(name, 0.0):
            return False
        self._due[name] = now_mono + every_s
        return True

    async def run(self, redis_ms: int, *, verdict: bool) -> None:
        """Do what is due; `verdict`: something was published just now, so the view is."""
        now_mono = time.monotonic()
        reign = self._reign
        if self._is_due("index", INDEX_S, now_mono):
            await self._index(now_mono)
        if self._is_due("expire", EXPIRE_S, now_mono):
            await operators.expire(reign)
        if self._is_due("record", RECORD_S, now_mono):
            reign.recorder.flush(reign.hands.outbox)
        if reign.history.due(reign.clock.now_ms):
            await self._history()
        if self._is_due("trim", TRIM_S, now_mono):
            await trim_recording(reign.client, reign.keys, redis_ms)
            reign.inboxes.prune(now_mono)
        if len(reign.hands.outbox):
            await reign.hands.do()
        values: dict[str, bytes] = {}
        if verdict or self._is_due("view", VIEW_S, now_mono):
            values["view"] = self._view()
        if self._is_due("state", STATE_S, now_mono):
            values["state"] = reign.save()
            self._to_disk(values["state"])
        if values:
            await writes.save(reign.client, reign.keys, reign.fence, values)

    async def _index(self, now_mono: float) -> None:
        reign, inboxes = self._reign, self._reign.inboxes
        inboxes.sync(await reads.workers(reign.client, reign.keys), now_mono)
        quiet = inboxes.silent(now_mono, GONE_S)[:MOST_LOOKED_AT]
        for worker in await writes.forget_workers(reign.client, reign.keys, [box.worker for box in quiet]):
            if inboxes.leave(worker, now_mono):
                reign.feed(WorkerLeft(worker))
        silent = [b for b in inboxes.silent(now_mono, SILENT_S) if b.cursor != FIRST][:MOST_LOOKED_AT]
        keys = [reign.commands_key, *(box.key for box in silent)]
        before = [inboxes.cursors[key] for key in keys]
        edges = await reads.edges(
            reign.client, [(key.decode(), at) for key, at in zip(keys, before, strict=True)]
        )
        back = [
            e.last is not None and id_order(e.last) < id_order(at)
            for e, at in zip(edges, before, strict=True)
        ]
        # A failed-over Redis: new entries would lie behind our cursor, and we would be deaf to that stream.
        if back[0]:
            # From here on only: what stands there may have been done before, and has no waiter any more.
            inboxes.cursors[reign.commands_key] = edges[0].last or FIRST
        for box, is_back in zip(silent, back[1:], strict=True):
            if is_back:
                inboxes.rewind(box)
        if any(back[1:]):
            self.gap("ids_back")

    def gap(self, reason: str) -> None:
        """Say that reports may be missing."""
        self._reign.counters.gaps[reason] += 1
        self._reign.feed(GapSeen(reason))
        log.warning("reports may be missing", action="leader.gap", reason=reason)

    async def _history(self) -> None:
        reign, history = self._reign, self._reign.history
        targets, opened = history.targets(), history.wanted()
        found: dict[tuple[str, str], HistoryPoint] = {}
        if opened and targets:
            fields = [step.field(at) for step, at in opened]
            wanted = [(reign.keys.history(target), fields) for target in targets]
            for target, values in zip(targets, await reads.history_fields(reign.client, wanted), strict=True):
                for (step, _), raw in zip(opened, values, strict=True):
                    point = decode_point(raw)
                    if point is not None:
                        found[target, step.prefix] = point
        written = history.close(reign.clock.now_ms, reign.inboxes.heard(), found)
        if written:
            hashes = {
                reign.keys.history(target): {step.field(p.at_ms): encode_point(p) for step, p in points}
                for target, points in written.items()
            }
            await writes.put_fields(reign.client, reign.keys, reign.fence, "history:<target>", hashes)

    def _view(self) -> bytes:
        reign = self._reign
        view = reign.engine.view(reign.state, reign.clock.now_ms, reign.context.replica)
        ours = {
            "entries_read": reign.counters.entries_read,
            "entries_unreadable": reign.counters.unreadable.total(),
            "worker_id_clashes": reign.counters.worker_id_clashes,
            "gaps": reign.counters.gaps.total(),
        }
        data = encode_view(msgspec.structs.replace(view, counters={**view.counters, **ours}))
        reign.counters.view_bytes = len(data)
        return data

    def _to_disk(self, data: bytes) -> None:
        """Beside the loop: a slow disk must not hold up a verdict. At most one write at a time."""
        if self._reign.state_dir is None or (self._file is not None and not self._file.done()):
            return
        self._file = asyncio.create_task(self._write_file(data))

    async def _write_file(self, data: bytes) -> None:
        folder = self._reign.state_dir
        if folder is None:
            return
        try:
            await asyncio.to_thread(folder.write, ENGINE_FILE, data)
        except StateDirError as exc:
            self._reign.counters.state_dir_errors += 1
            if not self._file_failed:
                log.error("state folder refused the state", action="statedir.failed", error=exc.strerror)
            self._file_failed = True
        else:
            self._file_failed = False

    async def finish(self) -> None:
        """Wait for a write to the disk that is under way."""
        if self._file is not None:
            await asyncio.wait([self._file], timeout=5)
