"""The Redis users of deploy/redis-acl allow what the halves need and nothing else, on real servers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from supervisor.wire.keys import KEYS, Keys
from tests.support.redis_server import RedisServer, missing, sync_client

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "redis-acl" / "make-users.sh"
P = "sv:v1:{acl}:"


def make_users(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *args],  # noqa: S607 - sh of the PATH
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def acl_rules(line: str) -> list[str]:
    """A line of an ACL file as arguments of ACL SETUSER: a selector in brackets is one of them."""
    return re.findall(r"\([^)]*\)|\S+", line)[1:]


class Fleet:
    """A server with two workers' users, a supervisor's and the shared one, and clients for each."""

    def __init__(self, server: RedisServer, passwords: dict[str, str]) -> None:
        self.url = server.url
        self._passwords = passwords

    def client(self, user: str) -> Any:
        return sync_client(self.url, username=user, password=self._passwords[user])


@pytest.fixture(scope="module", params=["embedded", "redis-server"])
def fleet_users(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    binary = None
    if request.param == "redis-server":
        binary = shutil.which("redis-server") or missing("redis-server")
    own, shared = make_users("acl", "w1", "w2"), make_users("acl", "--shared")
    assert own.returncode == shared.returncode == 0, own.stderr + shared.stderr
    users = tmp_path_factory.mktemp("acl") / "users.acl"
    extra = [line for line in shared.stdout.splitlines() if line.startswith("user sv-worker-shared")]
    users.write_text(own.stdout + "\n".join(extra) + "\n", encoding="utf-8")
    passwords = dict(re.findall(r"redis://([\w-]+):(\w+)@", shared.stderr + own.stderr))
    with RedisServer({"aclfile": str(users)} if binary else None, binary=binary) as server:
        if binary is None:
            # The embedded server's own start waits for a PING without a password: users come afterwards.
            with sync_client(server.url) as client:
                for line in reversed(users.read_text(encoding="utf-8").splitlines()):
                    client.execute_command("ACL", "SETUSER", *acl_rules(line))
        yield Fleet(server, passwords)


WORKER_MAY = [
    f"XADD {P}in:w1 MAXLEN ~ 1000 * r x",
    f"EXPIRE {P}in:w1 120",
    f"HSET {P}worker:w1 i x",
    f"EXPIRE {P}worker:w1 15",
    f"ZADD {P}workers 1 w1",
    f"HSET {P}session:s1 i x",
    f"EXPIRE {P}session:s1 15",
    f"ZADD {P}sessions 1 s1",
    f"XADD {P}faults MAXLEN ~ 50000 * f x",
    f"XADD {P}sessions:ended MAXLEN ~ 20000 * s x",
    f"HGETALL {P}strategy",
    f"HGETALL {P}limits",
    f"XREAD STREAMS {P}directive:w1 0",
    f"DEL {P}worker:w1",
    "TIME",
    "PING",
]
WORKER_MAY_NOT = [
    f"XADD {P}in:w2 * r x",
    f"HSET {P}worker:w2 i x",
    f"XREAD STREAMS {P}directive:w2 0",
    f"XREAD STREAMS {P}faults 0",
    f"XADD {P}directive:w1 * d x",
    f"XADD {P}events * e x",
    f"XADD {P}commands * c x",
    f"DEL {P}faults",
    f"HSET {P}strategy t x",
    f"HSET {P}override t x",
    f"HGETALL {P}tokens",
    f"HGETALL {P}session:s1",
    f"GET {P}state",
    f"HSET {P}leader token x",
    f"PUBLISH {P}wake x",
    f"SUBSCRIBE {P}other",
    "EVAL return-1 0",
    "SCRIPT LOAD return-1",
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "KEYS *",
    "SCAN 0",
    "INFO",
    "ACL LIST",
    "XADD sv:v1:{other}:in:w1 * r x",
]


@pytest.mark.parametrize("command", WORKER_MAY)
def test_a_worker_may_do_its_work(fleet_users: Fleet, command: str) -> None:
    with fleet_users.client("sv-worker-w1") as client:
        client.execute_command(*command.split())


@pytest.mark.parametrize("command", WORKER_MAY_NOT)
def test_a_worker_may_do_nothing_else(fleet_users: Fleet, command: str) -> None:
    with fleet_users.client("sv-worker-w1") as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_a_worker_hears_the_wake_up(fleet_users: Fleet) -> None:
    with fleet_users.client("sv-worker-w1") as client, client.pubsub() as pubsub:
        pubsub.subscribe(Keys("acl")("wake"))
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        with fleet_users.client("sv-supervisor") as boss:
            assert boss.publish(Keys("acl")("wake"), b"x") == 1
        assert pubsub.get_message(timeout=5)["data"] == b"x"


def test_a_worker_runs_the_leaders_scripts_with_its_own_rights_only(fleet_users: Fleet) -> None:
    with fleet_users.client("sv-supervisor") as boss, fleet_users.client("sv-worker-w1") as client:
        lease = boss.script_load("return redis.call('HINCRBY', KEYS[1], 'used', ARGV[1])")
        evil = boss.script_load("return redis.call('HSET', ARGV[1], 't', 'x')")
        limit = Keys("acl").limit("groq-rpm")
        assert client.evalsha(lease, 1, limit, 5) == 5
        with pytest.raises(NoPermissionError):
            client.evalsha(lease, 1, f"{P}strategy", 5)
        with pytest.raises(redis.ResponseError, match=r"(?i)perm|can't access"):
            client.evalsha(evil, 1, limit, f"{P}strategy")


def test_the_shared_worker_reports_under_any_name_and_no_more(fleet_users: Fleet) -> None:
    with fleet_users.client("sv-worker-shared") as client:
        client.execute_command("XADD", f"{P}in:anyone", "*", "r", "x")
        client.execute_command("XREAD", "STREAMS", f"{P}directive:anyone", "0")
        with pytest.raises(NoPermissionError):
            client.execute_command("HSET", f"{P}strategy", "t", "x")


def test_the_supervisor_reaches_every_key_of_its_fleet_and_no_other(fleet_users: Fleet) -> None:
    with fleet_users.client("sv-supervisor") as client:
        for spec in KEYS:
            client.execute_command("EXISTS", P + re.sub(r"<\w+>", "x", spec.name))
        client.execute_command("INFO", "memory")
        client.execute_command("EVAL", "return redis.call('TIME')", "0")
        for command in (
            "GET sv:v1:{other}:state",
            "FLUSHALL",
            "CONFIG GET *",
            "KEYS *",
            "ACL LIST",
            "PUBLISH x y",
        ):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_nobody_comes_in_without_a_password(fleet_users: Fleet) -> None:
    with sync_client(fleet_users.url) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_passwords_are_hashed_in_the_file_and_new_each_time() -> None:
    first, second = make_users("f", "w1"), make_users("f", "w1")
    passwords = re.findall(r":(\w{48})@", first.stderr)
    assert len(passwords) == 2
    assert not [password for password in passwords if password in first.stdout or password in second.stderr]


@pytest.mark.parametrize(
    "args", [[], ["f"], ["F!", "w1"], ["f", "w 1"], ["f", "--shared", "w1"], ["f", "w1 ~*"]]
)
def test_wrong_names_end_the_script(args: list[str]) -> None:
    done = make_users(*args)
    assert done.returncode == 2
    assert done.stderr
