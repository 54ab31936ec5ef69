"""Callers: real audio conversation partners for an AgentSession or a LiveKit room."""

from __future__ import annotations

from worker.simulator.callers.audio import ListeningOutput, ScriptedCallerInput
from worker.simulator.callers.caller import Caller, Manners
from worker.simulator.callers.ears import Ears
from worker.simulator.callers.records import Judgement, Summary, Turn, judge

__all__ = [
    "Caller",
    "Ears",
    "Judgement",
    "ListeningOutput",
    "Manners",
    "ScriptedCallerInput",
    "Summary",
    "Turn",
    "judge",
]
