"""The page in a real browser: what it shows, that it stays fresh, and that it works without scripts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, async_playwright

from supervisor.runtime.supervisor import run
from supervisor.wire.codec import encode
from supervisor.wire.messages import SessionInfo
from supervisor.wire.vocabulary import FaultKind
from tests.support.api_rig import OTHER, TARGET, TTS, Rig, rig, settings_for
from tests.support.redis_server import missing
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.acceptance]

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
STT = "stt:cartesia:ink-2"


@dataclass
class Shown:
    url: str
    face: Rig
    browser: Browser


@pytest.fixture
async def shown(redis_url: str, fleet: str) -> AsyncIterator[Shown]:
    """A browser, and a supervisor whose primary LLM has just failed and whose TTS is overruled."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        missing("Chromium")
    urls: list[str] = []
    stop = asyncio.Event()
    serving = asyncio.create_task(run(settings_for(redis_url, fleet, port=0), ready=urls.append, stop=stop))
    async with rig(redis_url, fleet, leads=False) as face, async_playwright() as playwright:
        await wait_until(lambda: urls, "it listens", 10)
        browser = await playwright.chromium.launch(executable_path=binary, args=ARGS)
        worker = await face.worker("worker-a", STT, TARGET, OTHER, TTS)
        await face.shown(STT, TARGET, OTHER, TTS)
        for _ in range(8):
            worker.fault(TARGET, FaultKind.SERVER)
            await worker.send()

        async def condemned() -> bool:
            view = await face.api.records.view()
            return view is not None and any(t.id == TARGET and t.state != "healthy" for t in view.targets)

        await wait_until(condemned, "a verdict", 10)
        body = {"state": "observe_only", "reason": "new voice on trial", "ttl_s": 600}
        path = f"/v1/targets/{TTS.replace('/', '~1')}/override"
        async with httpx.AsyncClient() as http:
            assert (await http.put(urls[0] + path, json=body)).status_code == 200
        yield Shown(urls[0], face, browser)
        await browser.close()
        stop.set()
        await asyncio.wait_for(serving, 15)


async def test_the_index_shows_the_fleet_and_stays_fresh(shown: Shown, tmp_path: Path) -> None:
    page = await shown.browser.new_page(viewport={"width": 1360, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(shown.url)
    text = await page.inner_text("main")
    for expected in (
        "llama-3.3-70b-versatile",
        "unhealthy",
        "observe only",
        "new voice on trial",
        "worker-a",
    ):
        assert expected in text
    await page.screenshot(path=tmp_path / "index.png", full_page=True)
    await page.emulate_media(color_scheme="dark")
    await page.screenshot(path=tmp_path / "dark.png", full_page=True)

    await shown.face.worker("worker-b")
    await page.wait_for_selector("text=worker-b", timeout=15_000)
    assert complaints == []
    assert all(url.startswith(shown.url) for url in asked)


async def test_calls_that_ended_are_shown_with_what_became_of_them(shown: Shown, tmp_path: Path) -> None:
    page = await shown.browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(shown.url)
    assert "No call has ended yet" in await page.inner_text("main")
    await page.evaluate("window.same = 1")

    now = await shown.face.api.records.now_ms()
    kinds = {"tts": {FaultKind.CUT: 1}, "llm": {FaultKind.SERVER: 2, FaultKind.FIRST_OUTPUT_TIMEOUT: 1}}
    hostile = "<script>window.ran = 1</script>"
    calls = [
        SessionInfo("call-fine", "worker-a", now - 60_000, now - 9_000, turns=4, failovers=1, outcome="ok"),
        SessionInfo("call/odd", hostile, now - 60_000, now - 5_000, errors={hostile: kinds["tts"]}, outcome=hostile),
        SessionInfo(
            "call-lost", "worker-a", now - 60_000, now - 1_000, turns=7, errors=kinds, failovers=2, apologies=3,
            longest_silence_ms=2_345, outcome="gave_up",
        ),
    ]  # fmt: skip
    for call in calls:
        await shown.face.append("sessions:ended", encode(call))

    # The script brings them in, as it does the other tables.
    await page.wait_for_selector("text=call-lost", timeout=15_000)
    rows = page.locator("table.calls tbody tr")
    texts = await rows.all_inner_texts()
    assert len(texts) == 3
    assert all(
        part in texts[0] for part in ("call-lost", "LLM 3", "TTS 1", "2.3 s", "gave up", "caller noticed")
    )
    assert hostile in texts[1]
    assert "ok" in texts[2]
    assert "caller noticed" not in texts[2]
    assert "2 server" in str(await rows.nth(0).locator("[title*=timeout]").get_attribute("title"))
    assert await rows.nth(0).locator("a").get_attribute("href") == "/v1/sessions/call-lost"
    assert await rows.nth(1).locator("a").count() == 0  # REST has no address for such an id
    assert await page.evaluate("[window.same, window.ran]") == [1, None]
    assert complaints == []
    for width in (1280, 390):
        await page.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=tmp_path / f"calls-{width}-{scheme}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.click("text=call-lost")
    assert '"outcome":"gave_up"' in await page.content()


async def test_the_pages_work_without_scripts_and_on_a_phone(shown: Shown, tmp_path: Path) -> None:
    context = await shown.browser.new_context(
        java_script_enabled=False, viewport={"width": 390, "height": 800}
    )
    page = await context.new_page()
    await page.goto(shown.url)
    assert "unhealthy" in await page.inner_text("main")
    # Wide tables scroll within their frame; the page itself never does.
    box = await page.locator("footer").bounding_box()
    assert box is not None
    assert box["width"] <= 390
    await page.screenshot(path=tmp_path / "phone.png", full_page=True)
    await page.goto(shown.url + "/docs")
    await page.click("summary:has-text('/v1/targets/{target_id}/override') >> nth=1")
    await page.screenshot(path=tmp_path / "docs.png", full_page=False)
    assert "Overrule a target's verdict" in await page.inner_text("main")
    await context.close()
