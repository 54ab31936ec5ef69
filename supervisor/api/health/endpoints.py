"""`/healthz`, `/readyz`, `/metrics`: for the machines that watch this process. No tokens (metrics: by setting)."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, cast

import redis.exceptions
from fastapi import APIRouter, Response

from supervisor.api.base import Api, ApiDep, Out
from supervisor.runtime.context import ReplicaRole, Status

router = APIRouter(tags=["health"])

# A loop that comes round every 100 ms and has not for this long is stuck, whatever else it says.
LOOP_STALE_S = 5.0
PING_S = 1.0


class HealthOut(Out):
    """How this process is."""

    status: Literal["ok", "failing"]
    role: ReplicaRole
    replica: str
    leader: str | None
    epoch: int
    revision: int
    redis: Literal["up", "down"]
    loop: Literal["running", "stuck"]
    loop_age_s: float
    problems: list[str]


async def _redis_answers(api: Api) -> bool:
    # Asked here and now: a frozen Redis must show at once, and must never hang the one who asks.
    try:
        async with asyncio.timeout(PING_S):
            await cast("Any", api.context.redis).ping()
    except (redis.exceptions.RedisError, OSError, TimeoutError):
        return False
    return True


def _health(status: Status, redis_up: bool, wrong: list[str]) -> HealthOut:
    stuck = status.last_loop_age_s > LOOP_STALE_S
    return HealthOut(
        status="failing" if wrong else "ok",
        role=status.role,
        replica=status.replica,
        leader=status.leader or None,
        epoch=status.epoch,
        revision=status.revision,
        redis="up" if redis_up else "down",
        loop="stuck" if stuck else "running",
        loop_age_s=round(status.last_loop_age_s, 3),
        problems=wrong,
    )


async def _look(api: Api) -> tuple[Status, bool, list[str]]:
    redis_up = await _redis_answers(api)
    status = api.context.status()
    wrong: list[str] = []
    if status.last_loop_age_s > LOOP_STALE_S:
        wrong.append("the supervisor's loop is stuck; restart this process")
    if not redis_up:
        wrong.append("Redis does not answer; check REDIS_URL and the server")
    return status, redis_up, wrong


@router.get("/healthz", summary="Is this process alive", responses={503: {"model": HealthOut}})
async def healthz(api: ApiDep, response: Response) -> HealthOut:
    """503 when the process's loop is stuck or Redis does not answer. A standby is as healthy as a leader."""
    status, redis_up, wrong = await _look(api)
    if wrong:
        response.status_code = 503
    return _health(status, redis_up, wrong)


@router.get("/readyz", summary="Can this process serve", responses={503: {"model": HealthOut}})
async def readyz(api: ApiDep, response: Response) -> HealthOut:
    """503 while starting, without Redis, or when nobody leads, so that there is nothing current to show."""
    status, redis_up, wrong = await _look(api)
    if redis_up and not status.ready:
        wrong.append("this process is still starting")
    if redis_up and not await api.records.has_view():
        wrong.append("no supervisor leads this fleet")
    if wrong:
        response.status_code = 503
    return _health(status, redis_up, wrong)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(api: ApiDep) -> Response:
    """Every metric is named in `supervisor.api.metrics`."""
    body, media_type = await api.metrics.render()
    return Response(body, media_type=media_type)
