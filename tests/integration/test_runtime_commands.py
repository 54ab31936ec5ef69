"""What operators ask for: checked by the leader, stored before it is acknowledged, in force, audited, undone."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio

from supervisor.runtime.context import SupervisorContext
from supervisor.runtime.kept import decode_book
from supervisor.store import reads
from supervisor.store.statedir import StateDir
from supervisor.wire.codec import decode, encode
from supervisor.wire.keys import FIELD, Keys
from supervisor.wire.messages import Audit, Command, Directive, OverrideRecord, PolicyRecord, TokenRecord
from supervisor.wire.vocabulary import DirectiveKind, OverrideState, TokenRole
from tests.support.replicas import ask, leading
from tests.support.reporting import TARGET, RawWorker, snapshot
from tests.support.waiting import wait_until

Redis = redis.asyncio.Redis


@pytest.fixture
async def led(redis_url: str, fleet: str, tmp_path: Path) -> Any:
    async with leading(redis_url, fleet, state_dir=tmp_path / "state") as context:
        yield context


@pytest.fixture
async def worker(redis_client: Redis, fleet: str, led: SupervisorContext) -> RawWorker:
    keys = Keys(fleet)
    found = RawWorker(redis_client, keys)
    found.ok()
    await found.register()
    await found.send()
    await wait_until(lambda: snapshot(redis_client, keys), "the target is known")
    return found


async def audit(client: Redis, keys: Keys) -> list[Audit]:
    raw = await cast("Any", client).xrange(keys("audit"))
    return [decode(fields[FIELD.encode()], Audit) for _, fields in raw]


async def test_an_override_is_stored_obeyed_audited_and_taken_back(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker, tmp_path: Path
) -> None:
    keys = Keys(fleet)
    reply = await ask(
        redis_client,
        keys,
        "override.set",
        scope=TARGET,
        state="forced_unhealthy",
        reason="maintenance",
        ttl_s=60,
    )
    assert reply.status == 200
    # By the time of the answer all of it is so.
    forced = await snapshot(redis_client, keys)
    assert forced is not None
    assert (forced.override, forced.revision) == (OverrideState.FORCED_UNHEALTHY, reply.revision)
    record = decode((await reads.kept(redis_client, keys))["override"][TARGET], OverrideRecord)
    assert (record.actor, record.version, record.reason) == ("tester", 1, "maintenance")
    assert record.expires_at_ms - record.set_at_ms == 60_000
    book = decode_book(StateDir(tmp_path / "state").read("kept.bin"))
    assert book is not None
    assert book.overrides == {TARGET: record}
    (line,) = await audit(redis_client, keys)
    assert (line.actor, line.op, line.subject, line.status) == ("tester", "override.set", TARGET, 200)

    stale = await ask(redis_client, keys, "override.clear", scope=TARGET, if_version=7)
    assert stale.status == 412
    again = await ask(
        redis_client, keys, "override.set", scope=TARGET, state="observe_only", reason="look", if_version=1
    )
    assert again.status == 200
    assert (await ask(redis_client, keys, "override.clear", scope=TARGET)).status == 200
    free = await snapshot(redis_client, keys)
    assert free is not None
    assert free.override is None
    assert (await reads.kept(redis_client, keys))["override"] == {}
    assert (await ask(redis_client, keys, "override.clear", scope=TARGET)).status == 404
    assert [line.status for line in await audit(redis_client, keys)] == [200, 412, 200, 200, 404]
    assert await cast("Any", redis_client).xlen(keys("override:history")) == 3


async def test_an_override_of_a_provider_ends_by_itself(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker
) -> None:
    keys = Keys(fleet)
    reply = await ask(
        redis_client,
        keys,
        "override.set",
        scope="provider:groq",
        state="forced_unhealthy",
        reason="x",
        ttl_s=1,
    )
    assert reply.status == 200

    async def free() -> bool:
        found = await snapshot(redis_client, keys)
        stored = (await reads.kept(redis_client, keys))["override"]
        return found is not None and found.override is None and not stored

    assert not await free()
    await wait_until(free, "it has run out", 10)
    lines = await audit(redis_client, keys)
    assert [line.op for line in lines] == ["override.set", "override.expired"]


async def test_policies_reach_the_strategy(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker
) -> None:
    keys = Keys(fleet)
    reply = await ask(redis_client, keys, "policy.set", scope="role:llm", reason="slow week", max_attempts=5)
    assert reply.status == 200

    async def attempts() -> int:
        found = await snapshot(redis_client, keys)
        return found.max_attempts if found else 0

    async def five() -> bool:
        return await attempts() == 5

    async def default() -> bool:
        return await attempts() == 2

    await wait_until(five, "the rule is in the strategy")
    stored = decode((await reads.kept(redis_client, keys))["policy"]["role:llm"], PolicyRecord)
    assert (stored.values, stored.version, stored.reason) == ({"max_attempts": 5}, 1, "slow week")
    assert (await ask(redis_client, keys, "policy.clear", scope="role:llm")).status == 200
    await wait_until(default, "the default is back")


async def test_probes_and_drains_become_directives(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker
) -> None:
    keys = Keys(fleet)
    assert (await ask(redis_client, keys, "probe", target=TARGET)).status == 202
    assert (await ask(redis_client, keys, "drain", worker="w1", reason="deploy")).status == 202

    async def kinds() -> set[DirectiveKind]:
        raw = await cast("Any", redis_client).xrange(keys.directive("w1"))
        return {decode(fields[FIELD.encode()], Directive).kind for _, fields in raw}

    async def both() -> bool:
        return await kinds() == {DirectiveKind.PROBE, DirectiveKind.DRAIN}

    await wait_until(both, "both directives")
    assert (await ask(redis_client, keys, "probe", target="llm:no:such")).status == 404
    assert (await ask(redis_client, keys, "drain", worker="nobody")).status == 404


async def test_tokens_are_kept_as_digests(redis_client: Redis, fleet: str, led: SupervisorContext) -> None:
    keys = Keys(fleet)
    sha = secrets.token_hex(32)
    reply = await ask(
        redis_client, keys, "token.set", id="t1", sha256=sha, role="viewer", note="wall", ttl_s=1
    )
    assert reply.status == 200
    stored = decode((await reads.kept(redis_client, keys))["tokens"]["t1"], TokenRecord)
    assert (stored.sha256, stored.role, stored.note) == (sha, TokenRole.VIEWER, "wall")

    async def gone() -> bool:
        return not (await reads.kept(redis_client, keys))["tokens"]

    await wait_until(gone, "it has run out", 10)
    lasting = await ask(redis_client, keys, "token.set", id="t2", sha256=sha, role="admin")
    assert lasting.status == 200
    assert (await ask(redis_client, keys, "token.delete", id="t2")).status == 200
    assert (await ask(redis_client, keys, "token.delete", id="t2")).status == 404


@pytest.mark.parametrize(
    ("op", "args", "status", "word"),
    [
        ("nonsense", {}, 400, "no such command"),
        ("override.set", {}, 400, "scope"),
        ("override.set", {"scope": "x"}, 400, "scope"),
        ("override.set", {"scope": "provider:a/b"}, 400, "provider"),
        ("override.set", {"scope": TARGET, "state": "dead", "reason": "r"}, 400, "state"),
        ("override.set", {"scope": TARGET, "state": "forced_healthy"}, 400, "reason"),
        ("override.set", {"scope": TARGET, "state": "forced_healthy", "reason": "a\nb"}, 400, "control"),
        (
            "override.set",
            {"scope": TARGET, "state": "forced_healthy", "reason": "r", "ttl_s": 90_000},
            400,
            "ttl_s",
        ),
        (
            "override.set",
            {"scope": TARGET, "state": "forced_healthy", "reason": "r", "ttl_s": True},
            400,
            "ttl_s",
        ),
        ("policy.set", {"scope": "galaxy", "max_attempts": 1}, 400, "scope"),
        ("policy.set", {"scope": "fleet"}, 400, "at least one"),
        ("policy.set", {"scope": "fleet", "no_such_rule": 1}, 422, "no_such_rule"),
        ("policy.set", {"scope": "fleet", "max_attempts": 10_000}, 422, "max_attempts"),
        ("policy.set", {"scope": "fleet", "max_attempts": "many"}, 400, "number"),
        ("token.set", {"id": "t", "sha256": "z" * 64, "role": "admin"}, 400, "hex"),
        ("token.set", {"id": "t", "sha256": "a" * 64, "role": "god"}, 400, "role"),
        ("drain", {"worker": "a:b"}, 400, "worker id"),
    ],
)
async def test_what_is_wrong_is_refused_in_words(
    redis_client: Redis,
    fleet: str,
    led: SupervisorContext,
    op: str,
    args: dict[str, Any],
    status: int,
    word: str,
) -> None:
    keys = Keys(fleet)
    reply = await ask(redis_client, keys, op, **args)
    assert reply.status == status
    assert word in reply.detail
    assert not any((await reads.kept(redis_client, keys)).values())
    assert led.counters.step_errors == 0


async def test_late_doubled_and_unreadable_commands_are_stepped_over(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker
) -> None:
    keys = Keys(fleet)
    api = cast("Any", redis_client)
    args: dict[str, Any] = {"scope": TARGET, "state": "forced_unhealthy", "reason": "late"}
    late = Command("late", 1, "tester", "override.set", args, expires_at_ms=1)
    await api.xadd(keys("commands"), {FIELD: encode(late)})
    await api.xadd(keys("commands"), {FIELD: b"\x01garbage"})
    once = Command("once", 1, "tester", "drain", {"worker": "w1"})
    for _ in range(3):
        await api.xadd(keys("commands"), {FIELD: encode(once)})
    assert (await ask(redis_client, keys, "override.clear", scope=TARGET)).status == 404
    assert await api.xlen(keys.directive("w1")) == 1
    assert not await api.exists(keys.reply("late"))
    assert led.counters.unreadable == {"malformed": 1}


async def test_nothing_changes_when_the_disk_refuses(
    redis_client: Redis, fleet: str, led: SupervisorContext, worker: RawWorker, tmp_path: Path
) -> None:
    keys = Keys(fleet)
    folder = tmp_path / "state"
    # A file in the folder's place refuses even those who may write anywhere.
    folder.rename(tmp_path / "moved")
    folder.write_text("in the way")
    reply = await ask(
        redis_client, keys, "override.set", scope=TARGET, state="forced_unhealthy", reason="r", ttl_s=60
    )
    assert reply.status == 503
    assert "SUPERVISOR_STATE_DIR" in reply.detail
    found = await snapshot(redis_client, keys)
    assert found is not None
    assert found.override is None
    assert not any((await reads.kept(redis_client, keys)).values())
    folder.unlink()
    reply = await ask(
        redis_client, keys, "override.set", scope=TARGET, state="forced_unhealthy", reason="r", ttl_s=60
    )
    assert reply.status == 200
