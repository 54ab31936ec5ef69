"""The link's small parts: clock, frames, fingerprint, what waits to be written, who runs probes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.wire.codec import decode, decode_worker, encode
from supervisor.wire.keys import Keys
from supervisor.wire.messages import Directive, FaultEvent, ProbeResult, SessionInfo, Snapshot
from supervisor.wire.vocabulary import DirectiveKind, FaultKind, Role, State
from worker.link import frames
from worker.link.api import Rule, Rules
from worker.link.clip import clip_event, clip_session
from worker.link.clock import RedisClock
from worker.link.fingerprint import key_fingerprint
from worker.link.outbox import MAX_FAULTS, MAX_SESSIONS, Outbox
from worker.link.probes import ProbeDesk
from worker.link.settings import LinkSettings

A = "llm:groq:a"


# ---------------------------------------------------------------- clock


def test_clock_keeps_the_sample_with_the_shortest_round_trip():
    clock = RedisClock(0.0)
    clock.measured(500_000, 100.0, 100.2)
    clock.measured(500_310, 100.4, 100.402)
    assert clock.now_ms(100.402) == pytest.approx(500_311, abs=1)
    clock.measured(500_900, 101.0, 101.2)
    assert clock.now_ms(100.402) == pytest.approx(500_311, abs=1)


def test_clock_says_when_redis_time_jumped_and_follows_it():
    clock = RedisClock(0.0)
    assert not clock.measured(500_000, 100.0, 100.001)
    assert not clock.measured(501_000, 101.0, 101.001)
    assert clock.measured(400_000, 102.0, 102.001)
    assert clock.now_ms(102.0) == pytest.approx(400_000, abs=2)
    assert clock.mono_of(401_000) == pytest.approx(103.0, abs=0.002)


# ---------------------------------------------------------------- fingerprint


def test_fingerprint_is_the_same_for_the_same_key_and_holds_nothing_of_it():
    key = "gsk_live_0123456789abcdef"
    print_ = key_fingerprint(key)
    assert print_ == key_fingerprint(key)
    assert print_ != key_fingerprint(key + "x")
    assert print_ != key_fingerprint(key, "fleet-secret")
    assert len(print_) == 16
    assert all(c in "0123456789abcdef" for c in print_)
    assert key_fingerprint("") == ""


def test_settings_never_show_the_redis_url():
    settings = LinkSettings(redis_url="redis://user:hunter2@redis:6379/0")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


# ---------------------------------------------------------------- frames


def test_frames_rules_come_out_as_they_went_in():
    snapshot = Snapshot(target=A, revision=3, epoch=9, state=State.LIMITED, condemned_keys=("k",))
    rules = Rules(3, 9, {A: Rule(snapshot, 12.5, 13.5, retry_allowed=False, stale=True)}, -7)
    (body,) = frames.FrameReader().feed(frames.rules_frame(rules, "w", "h"))
    message = frames.read_message(body)
    assert isinstance(message, frames.RulesFrame)
    assert frames.rules_of(message) == rules
    assert (message.worker, message.host) == ("w", "h")


def test_frames_tuples_of_the_call_path_are_what_the_container_reads():
    event = FaultEvent(1, "w", "h", A, kind=FaultKind.CUT)
    data = frames.frame(
        [
            (frames.HELLO, 7),
            (frames.HOLD, A, 1, "fp"),
            (frames.STARTED, 1, A, 2000, 12.5),
            (frames.FIRST_OUTPUT, 1, 120),
            (frames.SUCCEEDED, 1, A, 1, 2, 3),
            (frames.FAILED, 2, A, FaultKind.CUT, event, 500),
            (frames.ABANDONED, 3, A),
            (frames.SESSION, SessionInfo("s", "w", 1)),
            (frames.OFFER, Role.LLM, True),
            (frames.PROBED, ProbeResult("w", "d", A)),
            (frames.DROPPED, 4),
        ]
    )
    events, bad = frames.read_events(frames.FrameReader().feed(data)[0])
    assert bad == 0
    assert events == [
        frames.Hello(7),
        frames.Held(A, 1, "fp"),
        frames.Started(1, A, 2000, 12.5),
        frames.FirstOutput(1, 120),
        frames.Succeeded(1, A, 1, 2, 3),
        frames.Failed(2, A, FaultKind.CUT, event, 500),
        frames.Abandoned(3, A),
        frames.Session(SessionInfo("s", "w", 1)),
        frames.Offer(Role.LLM, True),
        frames.Probed(ProbeResult("w", "d", A)),
        frames.Dropped(4),
    ]


def test_frames_one_bad_event_does_not_cost_the_others():
    data = frames.frame([(frames.HELLO, -1), (99, 1), (frames.STARTED, 1, A, 2000, 1.0), "nonsense"])
    events, bad = frames.read_events(frames.FrameReader().feed(data)[0])
    assert events == [frames.Started(1, A, 2000, 1.0)]
    assert bad == 3


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 13))
def test_frames_come_whole_however_the_bytes_are_cut(bodies: list[bytes], step: int):
    stream = b"".join(frames.frame(body) for body in bodies)
    reader = frames.FrameReader()
    got = [f for at in range(0, len(stream), step) for f in reader.feed(stream[at : at + step])]
    assert b"".join(frames.frame(body)[4:] for body in bodies) == b"".join(got)
    assert len(got) == len(bodies)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=200))
def test_frames_any_bytes_give_events_or_bad_frame(data: bytes):
    with contextlib.suppress(frames.BadFrame):
        frames.read_events(data)
    with contextlib.suppress(frames.BadFrame):
        frames.read_message(data)


def test_frames_a_length_beyond_the_bound_is_refused_before_it_is_waited_for():
    with pytest.raises(frames.BadFrame, match="at most"):
        frames.FrameReader().feed(b"\xff\xff\xff\xff")


# ---------------------------------------------------------------- what a job hands over


def test_clip_makes_every_event_and_session_readable():
    event = FaultEvent(
        -5, "", "", "x", session="s" * 999, request_id="r" * 999, action="a" * 999, message="m" * 999,
        turn=-1, waited_ms=2**60,
    )  # fmt: skip
    assert decode(encode(clip_event(event)), FaultEvent).message == "m" * 300
    info = SessionInfo("s" * 999, "", -1, outcome="o" * 999)
    assert len(decode(encode(clip_session(info)), SessionInfo).session) == 128


# ---------------------------------------------------------------- outbox


def outbox() -> Outbox:
    return Outbox(Keys("f"), "w1")


def fault(number: int) -> FaultEvent:
    return FaultEvent(number, "w1", "h", A)


def test_outbox_nothing_leaves_before_it_was_written():
    box = outbox()
    box.fault(fault(1))
    box.result(ProbeResult("w1", "d", A))
    box.session(SessionInfo("s", "w1", 1))
    first = box.commands(5, all_sessions=False)
    assert box.commands(5, all_sessions=False) == first
    box.sent()
    assert len(box) == 0
    assert box.commands(5, all_sessions=False) == []
    assert box.sessions == 1


def test_outbox_what_came_while_the_round_was_under_way_waits_for_the_next():
    box = outbox()
    box.session(SessionInfo("s", "w1", 1, turns=1))
    box.fault(fault(1))
    box.commands(5, all_sessions=False)
    box.session(SessionInfo("s", "w1", 1, turns=2))
    box.fault(fault(2))
    box.sent()
    written = [c[-1] for c in box.commands(5, all_sessions=False) if c[0] in ("XADD", "HSET")]
    assert encode(fault(2)) in written
    assert encode(SessionInfo("s", "w1", 1, turns=2)) in written
    assert encode(fault(1)) not in written


def test_outbox_keeps_the_newest_faults_and_counts_what_fell_out():
    box = outbox()
    for number in range(MAX_FAULTS + 7):
        box.fault(fault(number))
    assert box.dropped_faults == 7
    first = box.commands(5, all_sessions=False)[0]
    assert decode(first[-1], FaultEvent).at_ms == 7  # pyright: ignore[reportArgumentType]  # the last part is the message


def test_outbox_an_ended_session_leaves_the_index_and_goes_to_the_ended_ones():
    box = outbox()
    box.session(SessionInfo("s", "w1", 1))
    box.commands(5, all_sessions=False)
    box.sent()
    box.session(SessionInfo("s", "w1", 1, ended_at_ms=9))
    words = [c[0] for c in box.commands(5, all_sessions=True)]
    assert words == ["XADD", "DEL", "ZREM"]
    assert box.sessions == 0


def test_outbox_has_a_bound_for_sessions_and_refuses_ids_that_cannot_be_keys():
    box = outbox()
    assert not box.session(SessionInfo("a:b{c}", "w1", 1))
    for number in range(MAX_SESSIONS):
        assert box.session(SessionInfo(f"s{number}", "w1", 1))
    assert not box.session(SessionInfo("one-more", "w1", 1))
    assert box.session(SessionInfo("s1", "w1", 1, turns=4))
    assert box.dropped_sessions == 2


# ---------------------------------------------------------------- probes


class Desk:
    def __init__(self) -> None:
        self.results: list[ProbeResult] = []
        self.asked: list[tuple[int, str]] = []
        self.desk = ProbeDesk("w1", self.results.append)

    def join(self, job: int, target: str = A, role: Role = Role.LLM) -> None:
        prober = self.desk.join(job, lambda d, _: self.asked.append((job, d.id)))
        prober.roles.add(role)
        prober.targets.add(target)

    def start(self, name: str, target: str = A, now: float = 0.0, deadline: float = 5.0) -> None:
        self.desk.start(Directive(name, DirectiveKind.PROBE, 1, 0, 0, target), now, deadline)


def test_probes_go_round_the_processes_that_can_run_them():
    w = Desk()
    for job in (1, 2, 3):
        w.join(job)
    w.join(4, target="llm:x:other")
    w.join(5, role=Role.TTS)
    for number in range(4):
        w.start(f"d{number}")
        w.desk.ended(w.asked[-1][0], ProbeResult("?", f"d{number}", "?"))
    assert [job for job, _ in w.asked] == [1, 2, 3, 1]
    assert [(r.worker, r.directive, r.target, r.fault) for r in w.results] == [
        ("w1", f"d{n}", A, None) for n in range(4)
    ]


def test_probes_without_anyone_to_run_them_end_as_local():
    w = Desk()
    w.start("d1")
    w.start("d2", target="nonsense")
    assert [r.fault for r in w.results] == [FaultKind.LOCAL, FaultKind.LOCAL]
    assert all(decode_worker(encode(r)) == r for r in w.results[:1])


def test_probes_of_a_process_that_dies_end_as_local_once():
    w = Desk()
    w.join(1)
    w.start("d1")
    w.desk.leave(1)
    w.desk.ended(1, ProbeResult("w1", "d1", A))
    w.desk.tick(99.0)
    assert [r.fault for r in w.results] == [FaultKind.LOCAL]


def test_probes_past_their_deadline_end_as_local_and_late_results_are_not_believed():
    w = Desk()
    w.join(1)
    w.start("d1", deadline=5.0)
    w.desk.tick(4.9)
    assert w.results == []
    w.desk.tick(5.0)
    w.desk.ended(1, ProbeResult("w1", "d1", A))
    assert [r.fault for r in w.results] == [FaultKind.LOCAL]


def test_probes_are_run_once_and_only_the_process_asked_is_believed():
    w = Desk()
    w.join(1)
    w.join(2)
    w.start("d1")
    w.start("d1")
    w.desk.ended(2, ProbeResult("w1", "d1", A))
    assert len(w.asked) == 1
    assert w.results == []
    w.start("late", now=6.0, deadline=5.0)
    assert len(w.asked) == 1
