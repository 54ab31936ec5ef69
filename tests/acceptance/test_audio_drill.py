"""`supervisor drill --audio` as a user runs it: real calls, a fault, what was heard, a page, and nothing left over."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet_rig import leftovers
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(400),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for leftovers in /proc"),
]

DONE_S = 300.0
GONE_S = 40.0


async def drill(mark: str, folder: Path, said: Path, *args: str) -> asyncio.subprocess.Process:
    """A drill of one case, with an environment and a folder of its own to find what it leaves behind."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "SUPERVISOR_", "WORKER_"))}
    with said.open("wb") as err:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisor", "drill", "--audio", "--variant", "guarded", "--role", "llm",
            "--fault", "500", "--sessions", "4", *args,
            env={**clean, "SV_TEST_MARK": mark, "TMPDIR": str(folder), "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=err,
            start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A TMPDIR with a short name: Python's own forkserver puts sockets there, which may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


async def test_guarded_callers_are_answered_while_the_first_model_fails(tmp_path: Path, folder: Path) -> None:
    mark, report = f"drill-{secrets.token_hex(8)}", tmp_path / "drill.html"
    said = tmp_path / "said.txt"
    process = await drill(mark, folder, said, "--outage", "14s", "--json", "--report", str(report))
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DONE_S):
            output = await process.stdout.read()
            code = await process.wait()
        assert code == 0, said.read_text()
        await wait_until(lambda: not leftovers(mark, folder), "everything has ended", GONE_S, every_s=0.1)
    finally:
        for pid, _ in leftovers(mark, folder):
            os.kill(pid, signal.SIGKILL)
        await process.wait()
    result = json.loads(output)
    assert result["healthy"]["guarded"]["p95"] is not None, "there were turns without a fault to compare with"
    (row,) = result["cases"]
    assert (row["variant"], row["role"], row["fault"]) == ("guarded", "llm", "500")
    assert row["turns"] >= row["calls"] > 0
    counts = {k: row[k] for k in ("answered", "silent", "words_lost", "words_twice", "closed")}
    assert counts == {"answered": row["turns"], "silent": 0, "words_lost": 0, "words_twice": 0, "closed": 0}
    page = report.read_text(encoding="utf-8")
    assert page.count('<g class="call">') >= row["calls"], "a timeline for each call"
    assert "http" not in page.replace("http://www.w3.org", ""), "the page needs nothing from elsewhere"


def rigs_in(folder: Path) -> list[str]:
    """What drills left of their folders."""
    return [path.name for path in folder.glob("livekit-supervisor-*")]


async def test_told_to_end_while_calls_go_on_it_leaves_nothing_behind(tmp_path: Path, folder: Path) -> None:
    mark, said = f"drill-{secrets.token_hex(8)}", tmp_path / "said.txt"
    process = await drill(mark, folder, said)
    try:
        await wait_until(lambda: list(folder.glob("*/callers.jsonl")), "callers speak", DONE_S, every_s=0.1)
        process.terminate()
        assert await process.wait() == 1, said.read_text()
        assert said.read_text().endswith("supervisor: interrupted; everything has ended\n")
        assert leftovers(mark, folder) == []
        assert rigs_in(folder) == []
    finally:
        for pid, _ in leftovers(mark, folder):
            os.kill(pid, signal.SIGKILL)
        await process.wait()
