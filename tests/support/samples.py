"""One sample of every message with every field set, and the golden files made of them.

`python -m tests.support.samples` adds a golden file for each message whose bytes have changed; files that are
there are never changed: they are what is on somebody's wire.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

from supervisor.wire import messages as m
from supervisor.wire.codec import decode, encode
from supervisor.wire.view import FleetView, TargetView, WorkerView, decode_view, encode_view
from supervisor.wire.vocabulary import (
    HISTOGRAM_BUCKETS,
    DirectiveKind,
    FaultKind,
    OverrideState,
    Phase,
    Role,
    State,
    TokenRole,
    WorkerState,
)

GOLDEN = Path(__file__).resolve().parents[1] / "contract" / "golden" / "v1"
TARGET = "llm:groq:meta/llama:3.3-ü"
NOW = 1_760_000_000_123

_COUNTS = m.TargetCounts(
    TARGET, 20, 12, {FaultKind.SERVER: 4, FaultKind.RATE_LIMIT: 1}, 2, 13, 1, 1, 3,
    tuple(range(HISTOGRAM_BUCKETS)), 900, 80, 70, "0123456789abcdef", 1500, 5,
)  # fmt: skip
_SNAPSHOT = m.Snapshot(
    TARGET, 7, NOW, State.RAMPING, 0.25, 1, 3, 120, 900, 0.4, 1800, 2900, 1400, 700, 0.2, 30.5, NOW + 5000,
    "ramp, step 2", 120_000, OverrideState.OBSERVE_ONLY, True, ("0123456789abcdef",), True, NOW - 9000,
)  # fmt: skip

SAMPLES: dict[str, m.Message] = {
    "Report": m.Report(
        "w-1", "boot1", 42, 15, "host-1", (_COUNTS, m.TargetCounts("tts:cartesia:sonic-3")), NOW, 7,
        {TARGET: "share above 1"}, 9, 2, True,
    ),
    "ProbeResult": m.ProbeResult("w-1", "probe-1", TARGET, FaultKind.SERVER, 120, 450, 503, "busy", 2000),
    "Goodbye": m.Goodbye("w-1", "boot1"),
    "FaultEvent": m.FaultEvent(
        NOW, "w-1", "host-1", TARGET, "call-1", 3, FaultKind.CUT, 200, "req-1", 2, Phase.MID_STREAM, "moved on",
        "stream ended early", 812,
    ),
    "Snapshot": _SNAPSHOT,
    "Wake": m.Wake(NOW, 7, (_SNAPSHOT,), ("stt:groq:whisper",)),
    "Directive": m.Directive("probe-1", DirectiveKind.PROBE, NOW, NOW + 1, NOW + 5000, TARGET, 3500, "due"),
    "WorkerInfo": m.WorkerInfo(
        "w-1", "boot1", "host-1", 123, NOW, "0.1.0", "pkg.agent:entrypoint", WorkerState.DRAINING, 9, (TARGET,),
        NOW, 7, 3, {TARGET: "share above 1"}, 2, (TARGET,), 1, 4,
    ),
    "SessionInfo": m.SessionInfo(
        "call-1", "w-1", NOW, NOW + 60_000, 12, {"llm": {FaultKind.CUT: 1}}, 2, 1, 640, "ended", {"llm": TARGET}
    ),
    "Event": m.Event(
        NOW, "verdict", TARGET, "healthy", "unhealthy", "5 in a row", 7, NOW, "w-1", "inc-1",
        {"run": 5, "bound": 0.56, "rule": "run"},
    ),
    "Command": m.Command(
        "cmd-1", NOW, "tok-1", "override.set", {"scope": TARGET, "ttl_s": 600, "x": 0.5, "y": True, "z": None},
        NOW + 3000,
    ),
    "Reply": m.Reply("cmd-1", 412, "it has changed since", 7),
    "Audit": m.Audit(NOW, "tok-1", "override.set", TARGET, "forced_unhealthy: maintenance", 200),
    "OverrideRecord": m.OverrideRecord(
        "provider:groq", OverrideState.FORCED_UNHEALTHY, "maintenance", "tok-1", NOW, NOW + 600_000, 3
    ),
    "PolicyRecord": m.PolicyRecord("role:llm", {"run_base": 7, "z": 1.5, "hedge": False}, "tok-1", NOW, 2, "try"),
    "TokenRecord": m.TokenRecord("tok-1", "ab" * 32, TokenRole.OPERATOR, "pager", NOW, NOW + 86_400_000),
}  # fmt: skip

VIEW = FleetView(
    NOW, "r1", NOW, 7,
    (
        TargetView(
            TARGET, Role.LLM, "groq", "meta/llama:3.3-ü", State.RAMPING, OverrideState.OBSERVE_ONLY, NOW - 9000,
            "ramp, step 2", 7, 0.25, 1, 20, 5, 0.25, 90, 9, 0.1, {FaultKind.SERVER: 9}, 4, 9, 1, 1, 220, 800,
            NOW + 5000, NOW + 3000, 1, "inc-1", True, {"run": 5}, ("0123456789abcdef",),
        ),
    ),
    (WorkerView("w-1", "host-1", 9, 7, {TARGET: "share above 1"}, NOW, "bad alone", (TARGET,), 2),),
    (Role.TTS,), NOW + 10_000, {"entries_read": 12},
)  # fmt: skip

KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(m.Message)}


def sample_bytes(name: str) -> bytes:
    """The sample as this build writes it."""
    return encode_view(VIEW) if name == "FleetView" else encode(SAMPLES[name])


def read_bytes(name: str, data: bytes) -> Any:
    """Any build's bytes as this build reads them."""
    return decode_view(data) if name == "FleetView" else decode(data, KINDS[name])


def golden(name: str) -> list[Path]:
    """The message's golden files, oldest first: `<name>.<number>.hex`."""
    return sorted(GOLDEN.glob(f"{name}.*.hex"), key=lambda path: int(path.name.split(".")[1]))


def read_golden(path: Path) -> bytes:
    """A golden file's bytes."""
    return bytes.fromhex("".join(path.read_text("ascii").split()))


def main() -> None:
    """Add what is missing."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name in [*SAMPLES, "FleetView"]:
        files = golden(name)
        data = sample_bytes(name)
        if files and read_golden(files[-1]) == data:
            continue
        path = GOLDEN / f"{name}.{len(files) + 1}.hex"
        text = data.hex()
        lines = [text[at : at + 96] for at in range(0, len(text), 96)]
        path.write_text("\n".join(lines) + "\n", "ascii")
        sys.stdout.write(f"{path.name}\n")


if __name__ == "__main__":
    main()
