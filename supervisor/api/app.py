"""The web application of one supervisor process: REST, metrics, the stream, the API's description, pages."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

from supervisor import __version__
from supervisor.api import problems
from supervisor.api.audit import endpoints as audit
from supervisor.api.auth import TokenBook
from supervisor.api.base import Api, require
from supervisor.api.base import problems as problems_of
from supervisor.api.commands import Commands
from supervisor.api.faults import endpoints as faults
from supervisor.api.fleet import endpoints as fleet
from supervisor.api.health import endpoints as health
from supervisor.api.incidents import endpoints as incidents
from supervisor.api.incidents.service import IncidentBook
from supervisor.api.metrics import Metrics
from supervisor.api.overrides import endpoints as overrides
from supervisor.api.policies import endpoints as policies
from supervisor.api.records import Records
from supervisor.api.security import Security
from supervisor.api.sessions import endpoints as sessions
from supervisor.api.strategies import endpoints as strategies
from supervisor.api.stream import endpoints as stream
from supervisor.api.stream.hub import Hub
from supervisor.api.targets import endpoints as targets
from supervisor.api.tokens import endpoints as tokens
from supervisor.api.tokens.service import first_token
from supervisor.api.workers import endpoints as workers
from supervisor.runtime.tasks import end
from supervisor.web import routes as web
from supervisor.wire.vocabulary import TokenRole

if TYPE_CHECKING:
    from supervisor.runtime.context import SupervisorContext

_V1 = (
    fleet,
    targets,
    overrides,
    strategies,
    workers,
    sessions,
    faults,
    incidents,
    audit,
    policies,
    tokens,
    stream,
)


def make_api(context: SupervisorContext) -> Api:
    """The parts that requests use."""
    records = Records(context.redis, context.keys)
    return Api(
        context=context,
        records=records,
        commands=Commands(context),
        tokens=TokenBook(records, context.settings),
        hub=Hub(context),
        metrics=Metrics(context, records),
        incidents=IncidentBook(records),
    )


def _say(line: str) -> None:
    sys.stderr.write(f"supervisor: {line}\n")
    sys.stderr.flush()


def create_app(context: SupervisorContext) -> FastAPI:
    """The application over `context`. Its lifespan makes the first admin token where one is needed.

    `await app.state.end_streams()` ends every open event stream: call it before the server waits for them.
    """
    api = make_api(context)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        first = asyncio.create_task(first_token(api.tokens, api.commands, context.settings, _say))
        try:
            yield
        finally:
            await end(first)
            await api.hub.close()

    app = FastAPI(
        title="livekit-supervisor",
        version=__version__,
        summary="Health, strategy and operators' verdicts of a fleet of voice agents.",
        lifespan=lifespan,
        # Both would load scripts from elsewhere; /docs is a page of our own.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.api = api
    app.state.end_streams = api.hub.close
    problems.install(app)
    app.add_middleware(Security, tokens=api.tokens, settings=context.settings)
    app.include_router(health.router)
    bearer = Depends(HTTPBearer(auto_error=False, description="A token made by `supervisor token create`."))
    v1 = APIRouter(
        prefix="/v1",
        dependencies=[Depends(require(TokenRole.VIEWER)), bearer],
        responses=problems_of(401, 403, 422, 503),
    )
    for part in _V1:
        v1.include_router(part.router)
    app.include_router(v1)
    app.include_router(web.router)
    return app
