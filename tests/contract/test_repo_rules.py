"""Rules of the repository that a reader would otherwise have to remember."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import supervisor
import worker

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
CODE = ("supervisor", "worker", "tests")
CODE_SUFFIXES = {".py", ".lua", ".js", ".css", ".html"}

# One letter of each is in brackets, or this file would break its own rule.
FORBIDDEN = [
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.])/w[o]rk(space)?/\w",
        r"/r[o]ot/[.\w]",
        r"/h[o]me/\w+/",
        r"/U[s]ers/\w+/",
        r"\bp[y]pi\.org\b",
        r"\bp[y]thonhosted\b",
        r"\bdeb\.d[e]bian\b",
        r"\bsecurity\.d[e]bian\b",
        r"\bregistry\.n[p]mjs\b",
    )
]

IGNORE = re.compile(r"#\s*(noqa|type:\s*ignore|pyright:\s*ignore|pragma:)(?P<rest>.*)")
NAMED = re.compile(r"^\s*(:\s*[A-Z]+\d+|\[[\w, -]+\]|no (cover|branch))")


def tracked() -> list[Path]:
    """Files that git knows or would add; without git (a source archive) every file below the code folders."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git of the PATH
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if git.returncode == 0:
        names = git.stdout.decode().split("\0")
        return [path for name in names if name and (path := ROOT / name).is_file()]
    return [path for folder in CODE for path in (ROOT / folder).rglob("*") if path.is_file()]


def text_files() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        raw = path.read_bytes()
        if b"\0" not in raw[:8000]:
            yield path, raw.decode("utf-8", errors="replace")


def test_import_rules_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_longer_than_the_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path, text in text_files()
        if path.suffix in CODE_SUFFIXES and (lines := text.count("\n")) > MAX_LINES
    }
    assert not long


def unexplained(path: Path) -> list[str]:
    """Comments in a Python file that ignore a rule without naming it, or without a reason beside or above."""
    found: list[str] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    with path.open("rb") as stream:
        comments = [token for token in tokenize.tokenize(stream.readline) if token.type == tokenize.COMMENT]
    for token in comments:
        match = IGNORE.search(token.string)
        if match is None:
            continue
        rest = match["rest"]
        named = NAMED.match(rest)
        number = token.start[0]
        where = f"{path.name}:{number}: {token.string}"
        if named is None:
            found.append(f"{where} names no rule")
            continue
        reason = re.sub(r"^(,\s*[A-Z]+\d+)+", "", rest[named.end() :]).strip(" -#:,")
        before = token.string[: match.start()].strip(" #")
        above = lines[number - 2].strip() if number > 1 else ""
        if not re.search(r"[a-z]{3}", reason + before) and not above.startswith("#"):
            found.append(f"{where} gives no reason")
    return found


def test_every_ignore_names_its_rule_and_its_reason() -> None:
    python = [path for path in tracked() if path.suffix == ".py"]
    assert [line for path in python for line in unexplained(path)] == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x = 1  # noqa", "names no rule"),
        ("x = 1  # type: ignore", "names no rule"),
        ("x = 1  # noqa: E501", "gives no reason"),
        ("x = 1  # noqa: E501, S101", "gives no reason"),
        ("x = 1  # pyright: ignore[reportUnknownMemberType]", "gives no reason"),
        ("x = 1  # noqa: E501 - a table reads better in one line", ""),
        ("x = 1  # pyright: ignore[reportUnknownMemberType]  # the wheel has no types", ""),
        ("# the wheel has no types\nx = 1  # pyright: ignore[reportUnknownMemberType]", ""),
    ],
)
def test_the_rule_for_ignores_can_fail(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "sample.py"
    file.write_text(f"{line}\n", encoding="utf-8")
    found = unexplained(file)
    assert (complaint in found[0]) if complaint else found == []


def test_no_machine_paths_and_no_registry_hosts() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in text_files()
        for pattern in FORBIDDEN
        if (match := pattern.search(text))
    ]
    assert found == []


def test_both_packages_say_the_same_version_and_are_typed() -> None:
    assert supervisor.__version__ == worker.__version__
    for package in ("supervisor", "worker"):
        assert (ROOT / package / "py.typed").exists()


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in tracked() if path.suffix == ".py" and path.parent != ROOT}
    assert [
        str(each.relative_to(ROOT)) for each in sorted(folders) if not (each / "__init__.py").exists()
    ] == []
