"""A link with a worker's own Redis user does all it has to do and is refused nothing; redis-server and Valkey."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.wire.messages import FaultEvent, Goodbye, ProbeResult, SessionInfo
from supervisor.wire.vocabulary import FaultKind
from tests.support.link_fleet import A, container, leader_hand
from tests.support.redis_server import RedisServer, missing, sync_client
from tests.support.waiting import wait_until

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "redis-acl" / "make-users.sh"
FLEET = "acl"


@pytest.fixture(params=["embedded", "redis-server"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    binary = None
    if request.param == "redis-server":
        binary = shutil.which("redis-server") or missing("redis-server")
    with RedisServer(binary=binary) as started:
        yield started


def worker_url(server: RedisServer) -> str:
    """Make the user of worker w1 on the server, and give the URL that it connects with."""
    made = subprocess.run(
        ["sh", str(SCRIPT), FLEET, "w1"],  # noqa: S607 - sh of the PATH
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    line = next(line for line in made.stdout.splitlines() if line.startswith("user sv-worker-w1 "))
    password = re.findall(r"redis://sv-worker-w1:(\w+)@", made.stderr)[0]
    with sync_client(server.url) as client:
        client.execute_command("ACL", "SETUSER", *re.findall(r"\([^)]*\)|\S+", line)[1:])
    return server.url.replace("redis://", f"redis://sv-worker-w1:{password}@")


async def test_a_link_needs_nothing_that_a_workers_user_may_not(
    server: RedisServer, capsys: pytest.CaptureFixture[str]
):
    url = worker_url(server)
    async with leader_hand(server.url, FLEET) as hand:
        await hand.lead()
        await hand.write(hand.snapshot(A, admit=0.5), wake=False)
        async with container(url, FLEET) as link:
            await wait_until(lambda: link.rules.by_target[A].snapshot.admit == 0.5, "the strategy is read")
            link.session(SessionInfo("call-1", "w1", 5))
            link.failed(link.started(A, 2_000), FaultKind.SERVER, FaultEvent(0, "", "", A))
            await wait_until(lambda: hand.redis.exists(hand.keys.session("call-1")), "a session's record")
            link.session(SessionInfo("call-1", "w1", 5, ended_at_ms=6))
            await wait_until(lambda: hand.stream("sessions:ended", SessionInfo), "its end")
            await hand.write(hand.snapshot(A, admit=0.25))
            await wait_until(lambda: link.rules.by_target[A].snapshot.admit == 0.25, "a wake-up")
            await hand.direct("w1")
            await wait_until(hand.results, "a directive's result")
            assert await hand.info() is not None
            assert await hand.stream("faults", FaultEvent)
        kinds = [type(message) for message in await hand.inbox()]
        assert ProbeResult in kinds
        assert kinds[-1] is Goodbye
        assert await hand.info() is None
        shown = capsys.readouterr().out
        assert "link.redis.refused" not in shown
        assert "link.redis.down" not in shown


async def test_a_wrong_password_is_said_without_being_shown_and_keeps_nobody_waiting(
    server: RedisServer, capsys: pytest.CaptureFixture[str]
):
    url = worker_url(server)
    wrong = re.sub(r":(\w+)@", ":hunter2hunter2@", url)
    async with container(wrong, FLEET) as link:
        reporter = link.reporter
        assert reporter is not None
        shown: list[str] = []

        def said() -> bool:
            shown.append(capsys.readouterr().out)
            return any("link.redis.down" in text for text in shown)

        await wait_until(said, "it is said")
        assert not reporter.up
        for _ in range(3):
            link.failed(link.started(A, 2_000), FaultKind.SERVER)
        assert link.rules.by_target[A].local_open_until_mono > 0
    assert "hunter2" not in "".join(shown) + capsys.readouterr().out
