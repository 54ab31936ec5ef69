"""The wire contract against its golden files and its documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from supervisor.runtime.requests import OPS
from supervisor.store.scripts import NAMES, script
from supervisor.wire.codec import MAX_BYTES, VERSION, decode, encode
from supervisor.wire.errors import Malformed, Oversized, UnknownVersion
from supervisor.wire.keys import KEYS, KeySpec
from supervisor.wire.messages import MAX_TARGETS_PER_WORKER, Message, Report, TargetCounts
from supervisor.wire.vocabulary import HISTOGRAM_BUCKETS, FaultKind
from tests.support.samples import GOLDEN, KINDS, SAMPLES, VIEW, golden, read_bytes, read_golden, sample_bytes

ROOT = Path(__file__).resolve().parents[2]
NAMES_OF_MESSAGES = [kind.__name__ for kind in get_args(Message)]
CONTRACT = (ROOT / "docs" / "contract.md").read_text("utf-8")


def test_every_message_has_a_sample_with_every_field_set() -> None:
    assert sorted(SAMPLES) == sorted(NAMES_OF_MESSAGES)
    for name, sample in SAMPLES.items():
        for field in msgspec.structs.fields(type(sample)):
            if field.default is not msgspec.NODEFAULT:
                # A field left at its default would not show up if it changed places with another.
                assert getattr(sample, field.name) != field.default or field.default == 200, (
                    name,
                    field.name,
                )


@pytest.mark.parametrize("name", [*NAMES_OF_MESSAGES, "FleetView"])
def test_the_newest_golden_file_is_what_this_build_writes(name: str) -> None:
    files = golden(name)
    assert files, f"run: python -m tests.support.samples (no golden file of {name})"
    assert read_golden(files[-1]).hex() == sample_bytes(name).hex(), (
        f"{name} is written otherwise than before. Fields may only be appended, with defaults; when that is what "
        "happened, run: python -m tests.support.samples"
    )
    assert read_bytes(name, read_golden(files[-1])) == (VIEW if name == "FleetView" else SAMPLES[name])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.hex")), ids=lambda path: path.name)
def test_every_golden_file_can_be_read(path: Path) -> None:
    name = path.name.split(".")[0]
    message = read_bytes(name, read_golden(path))
    assert type(message).__name__ == name
    sample = VIEW if name == "FleetView" else SAMPLES[name]
    first = msgspec.structs.fields(type(sample))[0].name
    assert getattr(message, first) == getattr(sample, first)


@pytest.mark.parametrize("name", NAMES_OF_MESSAGES)
def test_fields_of_a_later_build_are_ignored_and_other_messages_are_refused(name: str) -> None:
    kind, body = KINDS[name], msgspec.msgpack.decode(sample_bytes(name)[1:])
    longer = bytes([VERSION]) + msgspec.msgpack.encode([*body, "new", 7])
    assert decode(longer, kind) == SAMPLES[name]
    other: Any = KINDS["Goodbye" if name != "Goodbye" else "Reply"]
    with pytest.raises(Malformed):
        decode(sample_bytes(name), other)
    with pytest.raises(UnknownVersion):
        decode(b"\x02" + sample_bytes(name)[1:], kind)
    with pytest.raises(Oversized):
        decode(sample_bytes(name) + b"\x00" * MAX_BYTES, kind)


def test_the_largest_report_can_be_read() -> None:
    counts = [
        TargetCounts(
            f"llm:provider:{'m' * 180}{n:02}", 2**53, 2**53, dict.fromkeys(FaultKind, 2**53), 2**53, 2**53, 2**53,
            2**53, 2**53, (2**53,) * HISTOGRAM_BUCKETS, 2**53, 2**53, 2**53, "f" * 64, 2**53, 2**53,
        )
        for n in range(MAX_TARGETS_PER_WORKER)
    ]  # fmt: skip
    report = Report("w" * 128, "b" * 128, 2**53, 2**53, "h" * 128, tuple(counts), 2**53, 2**53)
    assert decode(encode(report), Report) == report


# ------------------------------------------------------------ docs/contract.md


def key_row(spec: KeySpec) -> str:
    bound = "" if spec.max_len is None else f"{spec.max_len:,}"
    ttl = "" if spec.ttl_s is None else f"{spec.ttl_s:,}"
    return f"| `{spec.name}` | {spec.type.value} | {bound} | {ttl} | {spec.writer} | {spec.reader} |"


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", CONTRACT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/contract.md has no section {title}"
    return found.group(1)


def rows(title: str) -> list[str]:
    table = [line for line in section(title).splitlines() if line.startswith("|")]
    return table[2:]


def test_the_table_of_keys_is_the_code() -> None:
    assert rows("Keys") == [key_row(spec) for spec in KEYS]


def test_every_key_has_a_bound() -> None:
    for spec in KEYS:
        assert spec.max_len or spec.ttl_s or spec.type.value == "channel", spec.name


def test_the_table_of_messages_is_the_code() -> None:
    wanted: list[str] = []
    for kind in get_args(Message):
        fields = ", ".join(f"`{field.name}`" for field in msgspec.structs.fields(kind))
        wanted.append(f"| `{kind.__name__}` | `{kind.__struct_config__.tag}` | {fields} |")
    assert rows("Messages") == wanted


def test_the_table_of_commands_is_the_code() -> None:
    assert {row.split("`")[1] for row in rows("Commands")} == OPS


def test_every_script_says_what_it_takes_and_gives() -> None:
    folder = ROOT / "supervisor" / "store" / "lua"
    assert sorted(path.stem for path in folder.glob("*.lua")) == sorted(NAMES)
    for name in NAMES:
        head = "\n".join(line for line in script(name).body.splitlines() if line.startswith("--"))
        assert all(word in head for word in ("KEYS:", "ARGV:", "gives")), name
