"""What the demo reads of its callers, from a file that grows while it is read."""

from __future__ import annotations

import json
from pathlib import Path

from supervisor.demo.caller_log import CallerLog


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "callers.jsonl"
    log = CallerLog(path)
    log.read()
    line = json.dumps({"event": "turn", "caller": "c1", "silent": False, "dead_air_s": 0.5}) + "\n"
    path.write_text(line + line[:20])
    log.read()
    assert len(log.turns) == 1
    path.write_text(line + line)
    log.read()
    assert log.summary() == {"turns": 2, "silent": 0, "dead_air_s": {"p50": 0.5, "p95": 0.5, "max": 0.5}}


def test_lines_that_cannot_be_read_are_counted_and_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "callers.jsonl"
    path.write_text('nonsense\n{"event": "turn"\n[]\n{"event":"state","caller":"c1","state":"waiting"}\n')
    log = CallerLog(path)
    log.read()
    assert (log.unreadable, log.doing) == (3, {"c1": "waiting"})


def test_a_caller_who_left_is_no_longer_shown(tmp_path: Path) -> None:
    path = tmp_path / "callers.jsonl"
    path.write_text(
        '{"event":"state","caller":"c1","state":"waiting"}\n{"event":"state","caller":"c1","state":"gone"}\n'
    )
    log = CallerLog(path)
    log.read()
    assert log.doing == {}
