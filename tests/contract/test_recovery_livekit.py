"""What recovery takes for granted of livekit-agents, private names included: an upgrade fails here first."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest
from livekit.agents import Agent, AgentSession, llm, stt, tts
from livekit.agents.llm import LLMError
from livekit.agents.types import APIConnectOptions
from livekit.agents.voice import SpeechHandle, events
from livekit.agents.voice.agent_activity import AgentActivity

Session = cast("Any", AgentSession)


@pytest.fixture
async def session() -> Any:
    return cast("Any", AgentSession)(vad=None)


async def test_slots_of_a_session(session: Any) -> None:
    for name in ("_stt", "_llm", "_tts", "_agent", "_activity"):
        assert hasattr(session, name), name
    assert session._is_closing() is False
    session._llm = marker = object()
    assert session.llm is marker


def test_slots_of_an_agent() -> None:
    agent = cast("Any", Agent(instructions=""))
    for name in ("_stt", "_llm", "_tts"):
        assert hasattr(agent, name), name


def test_update_options_takes_the_three_services() -> None:
    assert {"stt", "llm", "tts"} <= set(inspect.signature(cast("Any", Agent).update_options).parameters)


@pytest.mark.parametrize(
    ("adapter", "name"),
    [
        (llm.FallbackAdapter, "_llm_instances"),
        (stt.FallbackAdapter, "_stt_instances"),
        (tts.FallbackAdapter, "_tts_instances"),
    ],
)
def test_children_of_upstream_adapters(adapter: Any, name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(adapter.__init__)


async def test_options_that_are_changed_after_the_start(session: Any) -> None:
    assert session.options.transcription_timeout is None
    session.options.transcription_timeout = 2.0
    assert session.options.transcription_timeout == 2.0


def test_events_exist() -> None:
    known = set(cast("Any", events.EventTypes).__args__)
    assert known >= {
        "error", "close", "speech_created", "conversation_item_added", "function_tools_executed",
        "tool_execution_updated", "user_input_transcribed", "user_transcription_timeout", "user_state_changed",
        "agent_state_changed",
    }  # fmt: skip


def test_handlers_run_before_the_session_counts() -> None:
    source = inspect.getsource(AgentActivity._on_error)  # pyright: ignore[reportPrivateUsage] - that is what is tested
    assert source.index("_session.emit(") < source.index("_session._on_error(error)")
    assert "error.recoverable" in inspect.getsource(Session._on_error)


def test_an_agent_hand_off_is_told_before_the_new_agent_starts() -> None:
    source = inspect.getsource(Session._update_activity)
    assert source.index("ConversationItemAddedEvent(item=handoff_item)") < source.index("_activity.start(")


async def test_speech_handles(session: Any) -> None:
    handle = SpeechHandle.create()
    assert (handle.scheduled, handle.interrupted, handle.done(), handle.chat_items) == (
        False,
        False,
        False,
        [],
    )
    handle.interrupt(force=True)
    assert handle.interrupted


def test_say_takes_sound_and_stays_out_of_the_context() -> None:
    assert {"audio", "allow_interruptions", "add_to_chat_ctx"} <= set(
        inspect.signature(Session.say).parameters
    )


def test_error_events_hold_type_and_recoverable() -> None:
    error = LLMError(timestamp=0.0, label="x", error=RuntimeError(), recoverable=False)
    assert error.type == "llm_error"
    error.recoverable = True
    assert APIConnectOptions(max_retry=0).max_retry == 0
