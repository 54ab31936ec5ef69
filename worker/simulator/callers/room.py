"""The same caller joining a real LiveKit room: its microphone is published, the agent's track is heard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, cast

import numpy as np
from livekit import api, rtc

from worker.simulator.callers.audio import MIC_RATE
from worker.simulator.callers.caller import Caller
from worker.simulator.callers.records import Summary

__all__ = ["call_room", "token_for"]

_HEAR_RATE = 24_000


def token_for(room: str, identity: str, *, api_key: str, api_secret: str) -> str:
    """A token that lets a caller join a room, which is made if need be."""
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken(api_key, api_secret).with_identity(identity).with_grants(grants).to_jwt()


async def call_room(
    caller: Caller, *, url: str, token: str, turns: int | None = None, for_s: float | None = None
) -> Summary:
    """Calls through LiveKit: joins, waits for the agent to publish audio (30 s at most), talks, leaves.

    rtc.ConnectError when the server refuses; TimeoutError when no agent comes.
    """
    room = rtc.Room()
    agent_came = asyncio.Event()
    listening: set[asyncio.Task[None]] = set()

    def heard(track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            agent_came.set()
            task = asyncio.create_task(_listen(caller, track))
            listening.add(task)
            task.add_done_callback(listening.discard)

    cast("Any", room).on("track_subscribed", heard)
    cast("Any", room).on("track_unsubscribed", caller.call_ended)
    cast("Any", room).on("disconnected", caller.call_ended)
    source = rtc.AudioSource(MIC_RATE, 1, queue_size_ms=200)
    speaking: asyncio.Task[None] | None = None
    try:
        await room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        speaking = asyncio.create_task(_speak(caller, source))
        await asyncio.wait_for(agent_came.wait(), 30.0)
        return await caller.run(turns, for_s)
    finally:
        for task in [*listening, *([speaking] if speaking else [])]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await caller.aclose()
        await room.disconnect()
        await source.aclose()


async def _speak(caller: Caller, source: rtc.AudioSource) -> None:
    async for frame in caller.input:
        await source.capture_frame(frame)


async def _listen(caller: Caller, track: rtc.Track) -> None:
    stream = rtc.AudioStream(track, sample_rate=_HEAR_RATE, num_channels=1)
    try:
        async for event in stream:
            frame = event.frame
            caller.ears.hear(
                np.frombuffer(frame.data, np.int16), frame.sample_rate, time.monotonic() - frame.duration
            )
    finally:
        await stream.aclose()
