"""Targets, overrides, policies, workers and the rest of /v1 over a real leader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.wire.codec import encode
from supervisor.wire.keys import FIELD
from supervisor.wire.messages import Event, FaultEvent, SessionInfo
from supervisor.wire.targets import escape_path
from supervisor.wire.vocabulary import FaultKind
from tests.support.api_rig import OTHER, TARGET, TTS, Rig, rig
from tests.support.waiting import wait_until

MEMBERS = {
    "id", "role", "provider", "model", "state", "override", "since", "reason", "revision", "admit", "attempts",
    "faults", "fault_rate", "workers", "sessions",
}  # fmt: skip


@pytest.fixture
async def face(redis_url: str, fleet: str) -> AsyncIterator[Rig]:
    async with rig(redis_url, fleet) as made:
        await made.worker("w1")
        await made.shown(TARGET, OTHER, TTS)
        yield made


async def test_targets_come_by_role_and_rank_with_every_member(face: Rig) -> None:
    items = (await face.get("/v1/targets"))["items"]
    assert [item["id"] for item in items] == [TARGET, OTHER, TTS]
    assert set(items[0]) >= MEMBERS
    assert items[0]["state"] == "healthy"
    assert items[0]["provider"] == "groq"
    assert items[0]["override"] is None
    assert items[0]["admit"] == 1.0
    assert items[0]["workers"] == 1


async def test_an_id_with_slashes_and_tildes_is_one_path_segment(face: Rig) -> None:
    odd = "llm:groq:a~b/c:d é"
    await face.worker("w2", odd)
    await face.shown(odd)
    assert (await face.get(f"/v1/targets/{escape_path(TTS)}"))["id"] == TTS
    assert (await face.get(f"/v1/targets/{escape_path(odd)}"))["model"] == "a~b/c:d é"


async def test_what_is_no_target_id_is_a_400(face: Rig) -> None:
    for bad in ("llm", "llm:groq", "cat:groq:x", "llm::x", "llm:groq:%00", "llm:a~1b:x"):
        answer = await face.http.get(f"/v1/targets/{bad}")
        assert answer.status_code == 400, bad
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert body["type"].endswith(":bad-target-id")
        assert body["remedy"]


async def test_an_unknown_target_is_a_404(face: Rig) -> None:
    body = await face.get("/v1/targets/llm:groq:nobody", 404)
    assert body["status"] == 404
    assert "llm:groq:nobody" in body["detail"]


async def test_an_override_is_set_shown_and_taken_back(face: Rig) -> None:
    path = f"/v1/targets/{TARGET}/override"
    body = {"state": "forced_unhealthy", "reason": "their incident", "ttl_s": 60}
    answer = await face.http.put(path, json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["scope"], made["state"], made["reason"], made["actor"]) == (
        TARGET,
        "forced_unhealthy",
        "their incident",
        "local",
    )
    assert answer.headers["etag"]

    async def overruled() -> dict[str, Any] | None:
        shown = await face.get(f"/v1/targets/{TARGET}")
        return shown if shown["override"] == "forced_unhealthy" and shown["admit"] == 0 else None

    await wait_until(overruled, "the override in the picture")
    assert [item["scope"] for item in (await face.get("/v1/overrides"))["items"]] == [TARGET]
    assert (await face.get(path))["state"] == "forced_unhealthy"

    audit = (await face.get("/v1/audit"))["items"]
    assert (audit[0]["op"], audit[0]["actor"], audit[0]["subject"]) == ("override.set", "local", TARGET)

    assert (await face.http.delete(path)).status_code == 204
    assert (await face.http.delete(path)).status_code == 404
    await face.get(path, 404)


async def test_a_whole_provider_is_overruled(face: Rig) -> None:
    body = {"state": "forced_unhealthy", "reason": "outage", "ttl_s": 60}
    answer = await face.http.put("/v1/providers/groq/override", json=body)
    assert answer.status_code == 200, answer.text

    async def both() -> bool:
        items = (await face.get("/v1/targets"))["items"]
        return {item["id"] for item in items if item["override"]} == {TARGET, TTS}

    await wait_until(both, "both targets of the provider are overruled")
    assert (await face.http.put("/v1/providers/nobody/override", json=body)).status_code == 404


WRONG_OVERRIDES: list[object] = [
    {"state": "healthy", "reason": "x"},
    {"state": "forced_healthy"},
    {"state": "forced_healthy", "reason": ""},
    {"state": "forced_healthy", "reason": "   "},
    {"state": "forced_healthy", "reason": "x" * 301},
    {"state": "forced_healthy", "reason": "a\x1bb"},
    {"state": "forced_healthy", "reason": "x", "ttl_s": 0},
    {"state": "forced_healthy", "reason": "x", "ttl_s": 86_401},
    {"state": "forced_healthy", "reason": "x", "ttl_s": "60"},
    {"state": "forced_healthy", "reason": "x", "tll_s": 60},
    [],
    "x",
]


async def test_a_wrong_override_is_a_422_and_changes_nothing(face: Rig) -> None:
    for body in WRONG_OVERRIDES:
        answer = await face.http.put(f"/v1/targets/{TARGET}/override", json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.json()["type"].endswith(":invalid")
    assert (await face.get("/v1/overrides"))["items"] == []


async def test_a_wrong_body_is_not_repeated_in_the_answer(face: Rig) -> None:
    answer = await face.http.put(f"/v1/targets/{TARGET}/override", content=b'{"state": "sekret-value" ')
    assert answer.status_code == 422
    assert "sekret-value" not in answer.text


async def test_an_override_based_on_an_old_version_is_refused(face: Rig) -> None:
    path = f"/v1/targets/{TARGET}/override"
    body = {"state": "observe_only", "reason": "one", "ttl_s": 60}
    first = await face.http.put(path, json=body)
    second = await face.http.put(
        path, json={**body, "reason": "two"}, headers={"If-Match": first.headers["etag"]}
    )
    assert second.status_code == 200, second.text
    late = await face.http.put(
        path, json={**body, "reason": "three"}, headers={"If-Match": first.headers["etag"]}
    )
    assert late.status_code == 412
    assert late.headers["etag"] == second.headers["etag"]
    assert (await face.get(path))["reason"] == "two"
    gone = await face.http.delete(path, headers={"If-Match": first.headers["etag"]})
    assert gone.status_code == 412


async def test_a_policy_is_replaced_only_by_who_has_seen_it(face: Rig) -> None:
    path = "/v1/policies/role:llm"
    await face.get(path, 404)
    first = await face.http.put(path, json={"values": {"run_base": 6}})
    assert first.status_code == 200, first.text
    blind = await face.http.put(path, json={"values": {"run_base": 7}})
    assert blind.status_code == 428
    seen = await face.http.put(
        path, json={"values": {"run_base": 7}}, headers={"If-Match": first.headers["etag"]}
    )
    assert seen.status_code == 200, seen.text
    late = await face.http.put(
        path, json={"values": {"run_base": 8}}, headers={"If-Match": first.headers["etag"]}
    )
    assert late.status_code == 412
    listed = await face.get("/v1/policies")
    assert listed["items"][0]["values"] == {"run_base": 7}
    assert {rule["name"] for rule in listed["rules"]} >= {"run_base", "ramp_step_ms"}
    assert (await face.http.delete(path)).status_code == 428
    assert (await face.http.delete(path, headers={"If-Match": "*"})).status_code == 204


async def test_wrong_policies_are_refused(face: Rig) -> None:
    wrong: list[dict[str, Any]] = [{}, {"run_base": 0}, {"nobody": 1}, {"run_base": "6"}, {"run_base": None}]
    for values in wrong:
        answer = await face.http.put("/v1/policies/fleet", json={"values": values})
        assert answer.status_code == 422, (values, answer.text)
    for scope in ("all", "role:cat", "target:llm", "role:"):
        assert (await face.http.get(f"/v1/policies/{scope}")).status_code == 400, scope
    assert (await face.get("/v1/policies"))["items"] == []


async def test_a_probe_and_a_drain_reach_the_leader(face: Rig) -> None:
    answer = await face.http.post(f"/v1/targets/{TARGET}/probe")
    assert answer.status_code == 202, answer.text
    answer = await face.http.post("/v1/workers/w1/drain")
    assert answer.status_code == 202, answer.text

    async def told() -> bool:
        return bool(await face.redis.xlen(face.context.keys.directive("w1")))

    await wait_until(told, "a directive to the worker")
    assert (await face.http.post("/v1/workers/nobody/drain")).status_code == 404
    assert (await face.http.post("/v1/workers/no%20body/drain")).status_code == 400


async def test_fleet_strategies_and_workers_tell_one_story(face: Rig) -> None:
    fleet = await face.get("/v1/fleet")
    assert fleet["leader"] == face.context.replica
    assert (fleet["targets"], fleet["workers"]) == (3, 1)
    assert {role["role"] for role in fleet["roles"]} == {"llm", "tts"}
    strategies = await face.get("/v1/strategies")
    assert strategies["revision"] >= fleet["revision"]
    assert [item["worker"] for item in strategies["items"]] == ["w1"]
    workers = (await face.get("/v1/workers"))["items"]
    assert (workers[0]["id"], workers[0]["state"], workers[0]["host"]) == ("w1", "running", "host-w1")
    assert (await face.get("/v1/workers/w1"))["targets"] == [TARGET, OTHER, TTS]
    await face.get("/v1/workers/nobody", 404)


async def test_history_counts_what_was_reported(face: Rig) -> None:
    async def counted() -> int:
        items = (await face.get(f"/v1/targets/{TARGET}/history"))["items"]
        return sum(item["attempts"] for item in items)

    assert await wait_until(counted, "a finished 5 s step", 15) == 1
    assert (await face.get(f"/v1/targets/{TARGET}/history", step="1m"))["step_s"] == 60
    assert (await face.http.get(f"/v1/targets/{TARGET}/history?step=2m")).status_code == 422


def _fault(worker: str, kind: FaultKind, target: str = TARGET) -> bytes:
    return encode(FaultEvent(1_700_000_000_000, worker, "h", target, kind=kind, status=503, message="boom"))


async def test_faults_are_paged_newest_first_and_filtered(face: Rig) -> None:
    for number in range(5):
        await face.append("faults", _fault(f"w{number}", FaultKind.SERVER))
    await face.append("faults", _fault("w9", FaultKind.RATE_LIMIT))
    await face.append("faults", b"\x01garbage")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await face.get("/v1/faults", limit=2, **({"cursor": cursor} if cursor else {}))
        assert len(page["items"]) <= 2
        seen.extend(item["worker"] for item in page["items"])
        cursor = page["next"]
    assert seen == ["w9", "w4", "w3", "w2", "w1", "w0"]
    limited = (await face.get("/v1/faults", kind="rate_limit"))["items"]
    assert [item["worker"] for item in limited] == ["w9"]
    assert limited[0]["provider"] == "groq"
    assert limited[0]["at"] == "2023-11-14T22:13:20.000Z"
    filtered = await face.get("/v1/faults", kind="server", limit=3)
    assert [item["worker"] for item in filtered["items"]] == ["w4", "w3", "w2"]
    rest = await face.get("/v1/faults", kind="server", limit=3, cursor=filtered["next"])
    assert [item["worker"] for item in rest["items"]] == ["w1", "w0"]
    assert rest["next"] is None
    await face.get("/v1/faults", 422, kind="cat")
    await face.get("/v1/faults", 400, cursor="!!")
    await face.get("/v1/faults", 422, limit=0)


async def test_live_and_ended_calls_are_found(face: Rig) -> None:
    keys = face.context.keys
    for name in ("call-a", "call-b", "call-c"):
        await face.redis.hset(
            keys.session(name), FIELD, encode(SessionInfo(name, "w1", 1_700_000_000_000, turns=3))
        )
        await face.redis.expire(keys.session(name), 15)
        await face.redis.zadd(keys("sessions"), {name: 1})
    await face.redis.zadd(keys("sessions"), {"call-gone": 1})
    ended = SessionInfo("call-old", "w1", 1_700_000_000_000, 1_700_000_060_000, outcome="closed")
    await face.append("sessions:ended", encode(ended))
    first = await face.get("/v1/sessions", limit=2)
    assert [item["id"] for item in first["items"]] == ["call-a", "call-b"]
    second = await face.get("/v1/sessions", limit=2, cursor=first["next"])
    assert [item["id"] for item in second["items"]] == ["call-c"]
    assert [item["id"] for item in (await face.get("/v1/sessions", status="ended"))["items"]] == ["call-old"]
    assert (await face.get("/v1/sessions/call-a"))["live"] is True
    assert (await face.get("/v1/sessions/call-old"))["outcome"] == "closed"
    await face.get("/v1/sessions/nobody", 404)


async def test_incidents_are_folded_from_events(face: Rig) -> None:
    at = 1_700_000_000_000
    for number, (before, after) in enumerate(
        [("healthy", "unhealthy"), ("unhealthy", "ramping"), ("ramping", "healthy")]
    ):
        event = Event(
            at + number * 1_000, "verdict", TARGET, before, after, f"because {number}", incident="i-1"
        )
        await face.append("events", encode(event))
    await face.append(
        "events", encode(Event(at, "verdict", OTHER, "healthy", "unhealthy", "x", incident="i-2"))
    )
    found = {item["id"]: item for item in (await face.get("/v1/incidents"))["items"]}
    assert found["i-1"]["states"] == ["unhealthy", "ramping", "healthy"]
    assert found["i-1"]["duration_ms"] == 2_000
    assert found["i-1"]["reason"] == "because 0"
    assert (await face.get("/v1/incidents/i-2"))["target"] == OTHER
    await face.get("/v1/incidents/i-9", 404)


async def test_incidents_are_read_once_and_follow_what_redis_has(
    face: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ids() -> set[str]:
        return {item["id"] for item in (await face.get("/v1/incidents"))["items"]}

    async def happens(incident: str, entry_id: str = "*") -> None:
        event = Event(1_700_000_000_000, "verdict", TARGET, "healthy", "unhealthy", "x", incident=incident)
        await face.append("events", encode(event), entry_id)

    for number in range(3):
        await happens(f"old-{number}")
    assert await ids() >= {"old-0", "old-1", "old-2"}
    decoded: list[str] = []
    real = face.api.records.stream_after

    async def counted(*args: Any) -> Any:
        answer = await real(*args)
        decoded.extend(entry_id for entry_id, _ in answer[0])
        return answer

    monkeypatch.setattr(face.api.records, "stream_after", counted)
    await happens("new")
    assert await ids() >= {"old-0", "new"}
    assert len(decoded) <= 2  # ours, and at most one that the leader wrote meanwhile
    # Trimmed away is gone; and after a Redis that begins anew what it has is shown, whatever its ids are.
    await face.redis.xtrim(face.context.keys("events"), maxlen=1, approximate=False)
    assert "old-0" not in await ids()
    await face.redis.delete(face.context.keys("events"))
    await happens("anew", "5-0")
    assert await ids() == {"anew"}


async def test_calls_whose_records_are_gone_or_never_were_are_stepped_over(face: Rig) -> None:
    keys, names = face.context.keys, ["no name", *(f"gone-{n:03}" for n in range(250)), "here-1", "here-2"]
    await face.redis.zadd(keys("sessions"), dict.fromkeys(names, 1))
    for name in ("here-1", "here-2"):
        await face.redis.hset(keys.session(name), FIELD, encode(SessionInfo(name, "w1", 1)))
        await face.redis.expire(keys.session(name), 15)
    first = await face.get("/v1/sessions", limit=1)
    assert [item["id"] for item in first["items"]] == ["here-1"]
    second = await face.get("/v1/sessions", limit=1, cursor=first["next"])
    assert [item["id"] for item in second["items"]] == ["here-2"]
    assert second["next"] is None
