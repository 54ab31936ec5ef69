"""The audio drill's report: one HTML page that needs nothing else, with a picture of every call."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from supervisor.demo.audio_stats import late_in_words, verdict_on

_WIDTH, _LANE, _LABEL, _MARGIN_S = 960, 16, 150, 12.0
_COLUMNS = {
    "calls": "calls",
    "turns": "turns",
    "answered": "answered",
    "apologies": "apologies",
    "misheard": "misheard",
    "silent": "silent",
    "words_lost": "words lost",
    "words_twice": "said twice",
    "closed": "closed",
}
_KEY = {
    "in": "caller",
    "out": "answer",
    "other": "apology, or an answer to other words",
    "air": "dead air",
    "fault": "fault",
}
_AIR_HEAD = "<th>dead air p50</th><th>p95</th><th>max</th>"

# Turns that `dead_air_s` leaves out (see `audio_stats.summarise`).
_LATE_HEAD = '<th title="the recogniser failed within 1.2 s before the end of speech">late fault p95/max</th>'


def render_report(
    rows: Sequence[Mapping[str, Any]],
    healthy: Mapping[str, Mapping[str, Any]],
    timelines: Sequence[Mapping[str, Any]],
) -> str:
    """The page as text. All values are escaped; there is no script and nothing is fetched."""
    cases = list(dict.fromkeys((r["role"], r["fault"]) for r in rows))
    parts = [_head(), _healthy(healthy)]
    for role, fault in cases:
        mine = [r for r in rows if (r["role"], r["fault"]) == (role, fault)]
        parts.append(f"<h2>{escape(role)}: {escape(fault)}</h2>{_table(mine)}")
        parts += [_picture(t) for t in timelines if (t["role"], t["fault"]) == (role, fault)]
    return "".join(parts) + "</html>\n"


def _head() -> str:
    style = (resources.files(__package__ or "") / "report.css").read_text()
    key = "".join(f'<span style="background: var(--{name})"></span>{words}' for name, words in _KEY.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>What callers heard</title><style>{style}</style><h1>What callers heard</h1>"
        "<p>Words are decoded from the sound that reached the caller. Dead air is the time from the end of the "
        "caller's speech to the first sound; misheard, an answer to words that were understood in part. In the "
        f'pictures seconds count from the beginning of the fault.</p><p class="key">{key}</p>'
    )


def _healthy(healthy: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td>{_air(air)}</tr>" for name, air in healthy.items())
    return f"<h2>Without a fault</h2>{_wide(f'<table><tr><th>variant</th>{_AIR_HEAD}</tr>{rows}</table>')}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{label}</th>" for label in _COLUMNS.values())
    body = "".join(
        f"<tr><td>{escape(row['variant'])}</td>{''.join(_cell(key, row[key]) for key in _COLUMNS)}"
        f"{_air(row['dead_air_s'])}<td>{_late(row)}</td></tr>"
        for row in rows
    )
    return _wide(f"<table><tr><th>variant</th>{head}{_AIR_HEAD}{_LATE_HEAD}</tr>{body}</table>")


def _wide(part: str) -> str:
    """What is wider than a phone is moved there by itself, not the page."""
    return f'<div class="wide">{part}</div>'


def _late(row: Mapping[str, Any]) -> str:
    turns = row["fault_late"]["turns"]
    return f"{late_in_words(row)} s, of {turns}" if turns else "-"


def _cell(key: str, value: int) -> str:
    bad = ' class="bad"' if key in {"silent", "closed"} and value else ""
    return f"<td{bad}>{value}</td>"


def _air(air: Mapping[str, Any]) -> str:
    return "".join(f"<td>{_s(air[name])}</td>" for name in ("p50", "p95", "max"))


def _picture(timeline: Mapping[str, Any]) -> str:
    """One lane a call, time from left to right, the fault as a band behind."""
    lanes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for turn in timeline["turns"]:
        lanes[turn["caller"]].append(turn)
    begin = timeline["from_ms"] / 1000 - _MARGIN_S
    span = timeline["to_ms"] / 1000 + _MARGIN_S - begin
    scale = (_WIDTH - _LABEL) / span
    height = _LANE * len(lanes) + 20

    def bar(kind: str, start_s: float, length_s: float, lane: int, label: str) -> str:
        end_s = start_s + length_s
        start_s = max(start_s, begin)  # what began before the picture is cut at its edge
        x, width = _LABEL + (start_s - begin) * scale, max(0.5, (end_s - start_s) * scale)
        return (
            f'<rect class="{kind}" x="{x:.1f}" y="{18 + lane * _LANE}" width="{width:.1f}" height="{_LANE - 4}">'
            f"<title>{escape(label)}</title></rect>"
        )

    fault = (
        f'<rect class="fault" x="{_LABEL + _MARGIN_S * scale:.1f}" y="0" '
        f'width="{(timeline["to_ms"] - timeline["from_ms"]) / 1000 * scale:.1f}" height="{height}"/>'
    )
    name = f"{timeline['variant']}, round {timeline['round']}"
    ticks = "".join(
        f'<text class="tick" x="{_LABEL + (_MARGIN_S + second) * scale:.1f}" y="12">{second} s</text>'
        for second in _seconds(span)
    )
    drawn = [fault, f'<text x="0" y="12">{escape(name)}</text>{ticks}']
    for lane, (caller, turns) in enumerate(sorted(lanes.items(), key=lambda item: _by_number(item[0]))):
        name_of = f'<text x="0" y="{28 + lane * _LANE}">{escape(caller[-22:])}</text>'
        bars = "".join(part for turn in turns for part in _turn(turn, lane, bar))
        drawn.append(f'<g class="call">{name_of}{bars}</g>')
    label = f"{name}: {timeline['role']} {timeline['fault']}, {len(lanes)} calls"
    return _wide(
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'
    )


def _by_number(caller: str) -> list[tuple[int, str]]:
    """call-2 before call-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", caller)]


def _seconds(span_s: float) -> range:
    """The seconds to write over a picture, 0 where the fault begins: a dozen at most."""
    step = next((step for step in (5, 10, 30, 60, 300) if span_s <= 12 * step), 1800)
    return range(-int(_MARGIN_S // step) * step, int(span_s - _MARGIN_S), step)


def _turn(turn: Mapping[str, Any], lane: int, bar: Any) -> list[str]:
    end = turn["speech_end_at"] / 1000
    drawn = [bar("in", end - turn["speech_s"], turn["speech_s"], lane, f"caller, {turn['speech_s']:.1f} s")]
    if turn["dead_air_s"] is None:
        return [*drawn, bar("air", end, 8.0, lane, "no answer")]
    drawn.append(bar("air", end, turn["dead_air_s"], lane, f"dead air, {turn['dead_air_s']:.2f} s"))
    kind = "out" if verdict_on(turn) == "answered" else "other"
    said = f"{turn['expected'] - turn['lost']} of {turn['expected']} words, {turn['twice']} twice"
    return [*drawn, bar(kind, end + turn["dead_air_s"], turn["answer_s"], lane, said)]


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
