"""What cannot be written as UTF-8 (half an emoji out of a provider's JSON) stops nothing and costs no other event."""

from __future__ import annotations

import json

from supervisor.wire.codec import decode, encode
from supervisor.wire.keys import Keys
from supervisor.wire.messages import FaultEvent, ProbeResult, SessionInfo
from supervisor.wire.vocabulary import FaultKind
from worker.guard.classify import classify
from worker.link.clip import clip_event, clip_result, clip_session
from worker.link.outbox import MAX_FAULTS, Outbox

HALF: str = json.loads('"bad \\ud83d thing"')
A = "llm:groq:a"


def test_a_fault_is_told_without_it() -> None:
    fault = classify("groq", status=500, text=HALF)
    assert fault.kind is FaultKind.SERVER
    assert fault.message == "bad ? thing"


def test_every_message_can_be_encoded() -> None:
    event = FaultEvent(1, HALF, HALF, f"{A}{HALF}", HALF, request_id=HALF, action=HALF, message=HALF)
    assert decode(encode(clip_event(event)), FaultEvent).message == "bad ? thing"
    info = SessionInfo(HALF, HALF, 1, outcome=HALF, targets={HALF: f"{A}{HALF}"})
    assert decode(encode(clip_session(info)), SessionInfo).outcome == "bad ? thing"
    result = ProbeResult("w1", "d", A, message=HALF)
    assert decode(encode(clip_result(result)), ProbeResult).message == "bad ? thing"


def test_faults_that_come_during_a_round_fall_out_oldest_first_and_no_other_is_lost() -> None:
    box = Outbox(Keys("f"), "w1")
    for number in range(MAX_FAULTS):
        box.fault(FaultEvent(number, "w1", "h", A))
    sent = len(box.commands(5, all_sessions=False))
    for number in range(MAX_FAULTS, MAX_FAULTS + 50):
        box.fault(FaultEvent(number, "w1", "h", A))
    box.sent()
    assert len(box) == MAX_FAULTS - (sent - 50)
    oldest = box.commands(5, all_sessions=False)[0][-1]
    assert isinstance(oldest, bytes)
    assert decode(oldest, FaultEvent).at_ms == sent
