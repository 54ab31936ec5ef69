"""Who gets in: tokens, loopback, other hosts, other sites, too much, nobody leading, no Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from supervisor.api.auth import digest
from supervisor.wire.codec import encode
from supervisor.wire.messages import TokenRecord
from supervisor.wire.vocabulary import TokenRole
from tests.support.api_rig import TARGET, Rig, rig
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

ADMIN = "admin-token-of-this-test"


@pytest.fixture
async def bare(redis_url: str, fleet: str) -> AsyncIterator[Rig]:
    """Nobody leads; no tokens; loopback."""
    async with rig(redis_url, fleet, leads=False) as made:
        yield made


@pytest.fixture
async def closed(redis_url: str, fleet: str) -> AsyncIterator[Rig]:
    """A real leader, with an admin token in the settings."""
    async with rig(redis_url, fleet, admin_token=ADMIN) as made:
        yield made


async def _make(face: Rig, role: str, **more: object) -> dict[str, Any]:
    async with face.client(token=ADMIN) as admin:
        answer = await admin.post("/v1/tokens", json={"role": role, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()


async def _status(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> int:
    return (await client.request(method, path, **more)).status_code


async def test_without_tokens_only_this_machine_by_its_own_name_gets_in(bare: Rig) -> None:
    for host in ("127.0.0.1:8080", "localhost", "[::1]:8080", "127.8.8.8"):
        async with bare.client(host=host) as client:
            assert await _status(client, "GET", "/v1/overrides") == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example:8080", "10.0.0.7"):
        async with bare.client(host=host) as client:
            answer = await client.get("/v1/overrides")
            assert answer.status_code == 403, host
            assert "SUPERVISOR_ALLOWED_HOSTS" in answer.json()["remedy"]
    async with bare.client(peer="10.1.2.3") as client:
        answer = await client.get("/v1/overrides")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    async with bare.client() as client:
        # A proxy on this machine speaks for somebody else.
        assert await _status(client, "GET", "/v1/overrides", headers={"X-Forwarded-For": "10.1.2.3"}) == 401


async def test_every_route_but_the_open_ones_needs_a_token(closed: Rig) -> None:
    open_paths = {"/healthz", "/readyz", "/login", "/logout", "/static/{name}"}
    seen = 0
    async with closed.client() as client:
        for route in closed.app.router.routes:
            for method in getattr(route, "methods", None) or ():
                path = str(getattr(route, "path", ""))
                if path in open_paths or method in {"HEAD", "OPTIONS"}:
                    continue
                seen += 1
                status = await _status(client, method, path.replace("{", "").replace("}", ""))
                assert status == 401, (method, path, status)
    spec = closed.app.openapi()["paths"]
    async with closed.client() as client:
        for path, methods in spec.items():
            for method in methods:
                seen += 1
                status = await _status(client, method.upper(), path.replace("{", "").replace("}", ""))
                assert status == (401 if path not in open_paths else status), (method, path)
    assert seen > 30


async def test_roles_include_each_other_and_end_where_they_end(closed: Rig) -> None:
    await closed.worker("w1")
    async with closed.client(token=ADMIN) as admin:

        async def there() -> bool:
            return (await admin.get(f"/v1/targets/{TARGET}")).status_code == 200

        await wait_until(there, "the target is there")
    override = {"state": "observe_only", "reason": "x"}
    # What each role gets for: looking, overruling, the audit, policies, tokens.
    expected = {
        "viewer": (200, 403, 403, 403, 403),
        "operator": (200, 200, 200, 403, 403),
        "admin": (200, 200, 200, 200, 200),
    }
    for role, wanted in expected.items():
        token = (await _make(closed, role))["token"]
        async with closed.client(token=token) as client:

            async def known(client: httpx.AsyncClient = client) -> bool:
                return await _status(client, "GET", "/v1/fleet") == 200

            await wait_until(known, "the token is known")
            got = (
                await _status(client, "GET", "/v1/targets"),
                await _status(client, "PUT", f"/v1/targets/{TARGET}/override", json=override),
                await _status(client, "GET", "/v1/audit"),
                await _status(client, "PUT", "/v1/policies/fleet", json={"values": {"run_base": 6}}),
                await _status(client, "GET", "/v1/tokens"),
            )
            assert got == wanted, role


async def test_a_token_is_kept_as_its_digest_and_a_revoked_one_is_refused(closed: Rig) -> None:
    made = await _make(closed, "viewer", note="grafana")
    raw = await closed.redis.hgetall(closed.context.keys("tokens"))
    assert made["token"].encode() not in b"".join(raw.values())
    assert digest(made["token"]).encode() in b"".join(raw.values())
    async with closed.client(token=made["token"]) as client, closed.client(token=ADMIN) as admin:

        async def works() -> bool:
            return await _status(client, "GET", "/v1/fleet") == 200

        await wait_until(works, "the token works")
        listed = (await admin.get("/v1/tokens")).json()["items"]
        assert [(item["id"], item["note"]) for item in listed] == [(made["id"], "grafana")]
        assert "token" not in listed[0]
        assert await _status(admin, "DELETE", f"/v1/tokens/{made['id']}") == 204
        assert await _status(admin, "DELETE", f"/v1/tokens/{made['id']}") == 404

        async def refused() -> bool:
            return await _status(client, "GET", "/v1/fleet") == 401

        await wait_until(refused, "the revoked token is refused")


async def test_an_expired_token_is_refused(closed: Rig) -> None:
    now_ms = await closed.api.records.now_ms()
    record = TokenRecord("old", digest("tok-old-old-old"), TokenRole.ADMIN, "", 1, now_ms - 1)
    await closed.redis.hset(closed.context.keys("tokens"), "old", encode(record))
    async with closed.client(token="tok-old-old-old") as client:
        assert await _status(client, "GET", "/v1/fleet") == 401


async def test_a_process_that_has_seen_a_token_never_opens_again(bare: Rig) -> None:
    record = TokenRecord("one", digest("tok-one-one-one-one"), TokenRole.VIEWER)
    await bare.redis.hset(bare.context.keys("tokens"), "one", encode(record))
    assert await _status(bare.http, "GET", "/v1/overrides") == 401
    await bare.redis.delete(bare.context.keys("tokens"))
    async with bare.client(token="tok-one-one-one-one") as client:

        async def forgotten() -> bool:
            return await _status(client, "GET", "/v1/overrides") == 401

        await wait_until(forgotten, "the token is gone")
    assert await _status(bare.http, "GET", "/v1/overrides") == 401


async def test_changes_from_another_site_are_refused(closed: Rig) -> None:
    async with closed.client(token=ADMIN) as client:
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://[broken"},
        ):
            answer = await client.post("/v1/tokens", json={"role": "viewer"}, headers=headers)
            assert answer.status_code == 403, headers
            assert answer.json()["type"].endswith(":cross-origin")
        for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1:8080"}, {}):
            answer = await client.post("/v1/tokens", json={"role": "viewer"}, headers=headers)
            assert answer.status_code == 201, headers


async def test_every_answer_carries_the_security_headers(closed: Rig) -> None:
    async with closed.client() as client:
        for path in ("/healthz", "/v1/fleet", "/nowhere", "/login", "/static/app.css", "/static/nothing"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["x-frame-options"] == "DENY", path
            assert "access-control-allow-origin" not in headers, path


async def test_framework_errors_are_problems_too(bare: Rig) -> None:
    for method, path, status in (
        ("GET", "/v1/nowhere", 404),
        ("POST", "/v1/targets", 405),
        ("PATCH", "/healthz", 405),
        ("GET", "/v1/targets", 503),
    ):
        answer = await bare.http.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
            path
        )
        assert answer.json()["status"] == status
    assert "GET" in (await bare.http.post("/v1/targets")).headers["allow"]


async def test_a_body_is_bounded_whether_it_says_its_length_or_not(bare: Rig) -> None:
    path = f"/v1/targets/{TARGET}/override"
    assert await _status(bare.http, "PUT", path, content=b"x" * 70_000) == 413

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1_000

    assert await _status(bare.http, "PUT", path, content=parts()) == 413


async def test_a_change_without_a_leader_is_a_504_with_the_remedy(bare: Rig) -> None:
    answer = await bare.http.post("/v1/tokens", json={"role": "admin"})
    assert answer.status_code == 504
    assert "readyz" in answer.json()["remedy"]


async def test_the_first_token_must_be_an_admins_or_nobody_could_make_another(bare: Rig) -> None:
    for role in ("viewer", "operator"):
        answer = await bare.http.post("/v1/tokens", json={"role": role})
        assert answer.status_code == 409, answer.text
        assert "first token" in answer.json()["detail"]


async def test_a_page_sends_a_browser_to_the_login_and_a_cookie_lets_it_in(closed: Rig) -> None:
    made = await _make(closed, "viewer")
    async with closed.client() as browser:
        answer = await browser.get("/", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        wrong = await browser.post("/login", data={"token": "nonsense"})
        assert wrong.status_code == 401
        assert "unknown, expired or revoked" in wrong.text
        evil = await browser.post(
            "/login", data={"token": made["token"]}, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert evil.status_code == 403

        async def let_in() -> str:
            answer = await browser.post("/login", data={"token": made["token"]})
            return answer.headers.get("set-cookie", "")

        cookie = await wait_until(let_in, "the login works")
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert (await browser.get("/")).status_code == 200
        assert await _status(browser, "GET", "/v1/fleet") == 200
        assert await _status(browser, "PUT", "/v1/policies/fleet", json={"values": {"run_base": 6}}) == 403
        await browser.post("/logout")
        assert (await browser.get("/")).status_code == 401


@pytest.mark.no_key_check
async def test_a_redis_that_freezes_shows_everywhere_and_hangs_nothing(own_redis: RedisServer) -> None:
    async with rig(own_redis.url, "frozen", redis_timeout_s=0.5) as face:
        assert await _status(face.http, "GET", "/healthz") == 200
        assert await _status(face.http, "GET", "/readyz") == 200
        assert await _status(face.http, "GET", "/metrics") == 200
        await asyncio.to_thread(own_redis.freeze)
        try:
            async with asyncio.timeout(20):
                for path in ("/healthz", "/readyz"):
                    answer = await face.http.get(path)
                    assert answer.status_code == 503, path
                    assert answer.json()["redis"] == "down"
                answer = await face.http.get("/v1/targets")
                assert answer.status_code == 503
                assert answer.json()["type"].endswith(":redis-down")
                assert (await face.http.get("/")).status_code == 503
                metrics = await face.http.get("/metrics")
                assert "livekit_supervisor_redis_up 0.0" in metrics.text
        finally:
            own_redis.thaw()

        async def well() -> bool:
            return await _status(face.http, "GET", "/readyz") == 200

        await wait_until(well, "ready again", 15)


@pytest.mark.no_key_check
async def test_redis_that_was_never_seen_lets_nobody_in(own_redis: RedisServer) -> None:
    own_redis.kill()
    async with rig(own_redis.url, "away", leads=False) as face:
        answer = await face.http.get("/v1/fleet")
        assert answer.status_code == 503


async def test_beyond_loopback_a_first_admin_token_is_made_once(
    redis_url: str, fleet: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = ""

    def token_said() -> str:
        nonlocal said
        said += capfd.readouterr().err
        lines = [line for line in said.splitlines() if "shown only once" in line]
        return lines[0].rpartition(" ")[2] if lines else ""

    async with rig(redis_url, fleet, lifespan=True, host="0.0.0.0") as face:
        token = await wait_until(token_said, "the token is said")
        async with face.client(token=token, peer="10.0.0.9") as client:
            assert await _status(client, "GET", "/v1/tokens") == 200

        async def kept() -> bool:
            return bool(await face.redis.hlen(face.context.keys("tokens")))

        await wait_until(kept, "the leader keeps it", 10)
        assert await _status(face.http, "GET", "/v1/fleet") == 401
    said = ""
    async with rig(redis_url, fleet, lifespan=True, host="0.0.0.0") as face:
        async with face.client(token=token) as client:
            assert await _status(client, "GET", "/v1/fleet") == 200
        assert token_said() == ""
