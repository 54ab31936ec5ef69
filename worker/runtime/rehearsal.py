"""Local callers: in a rehearsal (`--local-callers`) each job process also holds the person it talks to.

What they live through goes to the file WORKER_CALLERS_RECORD, one line of JSON an event:
`{"event": "state", "caller", "at", "state": "talking|waiting|listening|gone"}` and
`{"event": "turn", "caller", "at", …}` with the fields of `worker.simulator.callers.records.Turn` and, counted in
words: `expected` of the right answer, `lost`, `twice`, `other` (an apology, say), and `stt_lost` of what the caller
said. `{"event": "closed", "caller", "at", "error"}` when the session ended itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, cast

import msgspec
from livekit.agents import AgentSession, CloseEvent, CloseReason, JobContext, UserInputTranscribedEvent

from worker.simulator.answers import answer_for
from worker.simulator.callers import Caller, Turn, judge

RECORD_ENV = "WORKER_CALLERS_RECORD"
LOOK_S = 0.2
SOUND_S = 0.3


class Rehearsal:
    """The caller of this job: attached to its session before the start, speaking from then on."""

    def __init__(self, ctx: JobContext, record: Path | None) -> None:
        self._ctx = ctx
        self._file = (
            None if record is None else os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        )
        self._caller = Caller(ctx.job.room.name, on_turn=self._turn)
        self._tasks: list[asyncio.Task[Any]] = []
        self._state = ""
        self._transcript: list[str] = []

    def attach(self, session: AgentSession[Any]) -> None:
        """Become the session's microphone and loudspeaker."""
        self._caller.attach(session)
        events = cast("Any", session)
        events.on("user_input_transcribed", self._transcribed)
        events.on("close", self._closed)

    def _transcribed(self, event: UserInputTranscribedEvent) -> None:
        if event.is_final:
            self._transcript.append(event.transcript)

    def _closed(self, event: CloseEvent) -> None:
        failed = event.reason is CloseReason.ERROR
        self._write({"event": "closed", "error": failed})
        if failed:  # the caller hangs up on a dead line; the rehearsal places the next call
            self._ctx.shutdown("session closed after errors")

    def begin(self) -> None:
        """The session runs: talk until the call ends. Only the first session of a job has the caller."""
        if self._tasks:
            return
        self._tasks = [
            asyncio.create_task(self._caller.run(), name="caller"),
            asyncio.create_task(self._look(), name="caller-state"),
        ]
        self._ctx.add_shutdown_callback(self._end)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(
            Exception
        ):  # the call is over; a loudspeaker that will not close changes nothing
            await self._caller.aclose()
        self._say("gone")
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def _look(self) -> None:
        while True:
            heard = self._caller.ears.last_sound()
            if self._caller.input.speaking:
                self._say("talking")
            elif heard is not None and time.monotonic() - heard < SOUND_S:
                self._say("listening")
            else:
                self._say("waiting")
            await asyncio.sleep(LOOK_S)

    def _say(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self._write({"event": "state", "state": state})

    def _turn(self, turn: Turn) -> None:
        words, self._transcript = " ".join(self._transcript).split(), []
        answer = answer_for(turn.said).split()
        answered, understood = judge(answer, turn.heard), judge(_bare(turn.said), _bare(" ".join(words)))
        counts = {
            "expected": len(answer),
            "lost": len(answered.lost),
            "twice": len(answered.twice),
            "other": len(answered.other),
            "stt_lost": len(understood.lost),
        }
        self._write({"event": "turn"} | msgspec.to_builtins(turn) | counts)

    def _write(self, event: dict[str, Any]) -> None:
        if self._file is None:
            return
        event |= {"caller": self._caller.name, "at": time.time_ns() // 1_000_000}
        # One short append a second, to a local file: nothing on the call's path waits for it in earnest.
        with contextlib.suppress(OSError):
            os.write(self._file, (json.dumps(event) + "\n").encode())


def _bare(text: str) -> list[str]:
    """Words as a recogniser may write them: without case and punctuation."""
    return [word.strip(".,!?;:").lower() for word in text.split()]


def rehearsal_from_environment(ctx: JobContext) -> Rehearsal | None:
    """The caller of a rehearsed call; None for a real one."""
    if not ctx.is_fake_job() or not os.environ.get("WORKER_LOCAL_CALLERS"):
        return None
    record = os.environ.get(RECORD_ENV)
    return Rehearsal(ctx, Path(record) if record else None)
