"""A page opens many requests at once, the first ones of a process among them: none may be told that Redis is down."""

from __future__ import annotations

import asyncio

from tests.support.api_rig import rig


async def test_first_requests_at_once_are_all_answered(redis_url: str, fleet: str) -> None:
    async with rig(redis_url, fleet, leads=False) as face:
        answers = await asyncio.gather(*(face.http.get("/v1/audit") for _ in range(8)))
    assert [a.status_code for a in answers] == [200] * 8, answers[-1].text
