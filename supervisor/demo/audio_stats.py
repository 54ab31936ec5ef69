"""From what callers heard to the audio drill's numbers. Pure: lines of the callers' record in, one row out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supervisor.demo.drill_stats import Outage, quantile

# A session that failed in the outage may close a little after it.
_CLOSES_WITHIN_MS = 5_000
# An answer may still be heard this long after the caller stopped speaking.
_A_TURN_MS = 6_000
_A_GOOD_PART = 0.2
# A recogniser that fails sooner than this before the caller's last word leaves no time to notice before it.
_LATE_MS = 1_200
# While targets ramp up again turns are no longer those of an outage, nor quite healthy ones.
_AFTERMATH_MS = 30_000

Line = Mapping[str, Any]
"""One line of the callers' record (see `worker.runtime.rehearsal`)."""


def turns_in(lines: Sequence[Line], outage: Outage) -> list[Line]:
    """Turns whose caller stopped speaking within the outage."""
    return [
        t for t in lines if t.get("event") == "turn" and outage.from_ms <= t["speech_end_at"] < outage.to_ms
    ]


def healthy_turns(lines: Sequence[Line], outages: Sequence[Outage]) -> list[Line]:
    """Turns that ended well before a fault began: nothing of it can be in them. The first of a call is start-up."""
    return [
        t for t in lines
        if t.get("event") == "turn" and t["turn"] > 1
        and not any(o.from_ms - _A_TURN_MS <= t["speech_end_at"] < o.to_ms + _AFTERMATH_MS for o in outages)
    ]  # fmt: skip


def verdict_on(turn: Line) -> str:
    """What a turn was for its caller.

    `silent`: nothing was heard in time. `answered`: a good part of the right answer. `misheard`: an answer, but to
    words that were recognised incompletely. `apology`: something else was said, or a recording was played.
    """
    if turn["silent"]:
        return "silent"
    # An apology may share a word with the answer by chance.
    if turn["expected"] - turn["lost"] >= _A_GOOD_PART * turn["expected"]:
        return "answered"
    understood_some = 0 < turn["stt_lost"] < len(str(turn["said"]).split())
    return "misheard" if understood_some and turn["other"] else "apology"


def summarise(
    variant: str, role: str, fault: str, lines: Sequence[Line], outages: Sequence[Outage]
) -> dict[str, Any]:
    """One row. words_lost and words_twice are counted in answered turns; dead air is over turns with any sound.

    dead_air_s leaves out the recogniser's turns whose fault began within 1.2 s before the end of speech: `fault_late`.
    """
    turns = [t for outage in outages for t in turns_in(lines, outage)]
    late = [
        t for outage in outages for t in turns_in(lines, outage)
        if role == "stt" and t["speech_end_at"] - outage.from_ms < _LATE_MS
    ]  # fmt: skip
    said = [verdict_on(t) for t in turns]
    answered = [t for t, what in zip(turns, said, strict=True) if what == "answered"]
    ends = [line["at"] for line in lines if line.get("event") == "closed" and line["error"]]
    closed = [at for at in ends if any(o.from_ms <= at < o.to_ms + _CLOSES_WITHIN_MS for o in outages)]
    return {
        "variant": variant,
        "role": role,
        "fault": fault,
        "calls": len({t["caller"] for t in turns}),
        "turns": len(turns),
        "answered": len(answered),
        "apologies": said.count("apology"),
        "misheard": said.count("misheard"),
        "silent": said.count("silent"),
        "dead_air_s": dead_air([t for t in turns if t not in late]),
        "fault_late": {"turns": len(late), **dead_air(late)},
        "words_lost": sum(t["lost"] for t in answered),
        "words_twice": sum(t["twice"] for t in answered),
        "stt_words_lost": sum(t["stt_lost"] for t in turns),
        "closed": len(closed),
    }


def late_in_words(row: Mapping[str, Any]) -> str:
    """p95/max in seconds of the turns that `summarise` holds apart; a dash without any."""
    late = row["fault_late"]
    return "-" if late["p95"] is None else f"{late['p95']:.2f}/{late['max']:.2f}"


def dead_air(turns: Sequence[Line]) -> dict[str, float | None]:
    """From the end of a caller's speech to the first sound, seconds: p50, p95, max."""
    air = [float(t["dead_air_s"]) for t in turns if t["dead_air_s"] is not None]
    found = {"p50": quantile(air, 0.5), "p95": quantile(air, 0.95), "max": max(air, default=None)}
    return {name: None if value is None else round(value, 3) for name, value in found.items()}
