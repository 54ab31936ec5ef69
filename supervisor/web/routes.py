"""The pages' routes: the index, the API's description, logging in and out, static files.

Pages work without JavaScript. A browser logs in with a bearer token, which then travels in a cookie that no
script can read and no other site can send (HttpOnly, SameSite=Strict); changes also need a same-origin request.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import redis.exceptions
from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from supervisor.api.auth import COOKIE
from supervisor.api.base import ApiDep, Viewer
from supervisor.api.problems import Problem, not_found
from supervisor.web import describe, index
from supervisor.web.render import page

if TYPE_CHECKING:
    from fastapi import FastAPI

router = APIRouter(include_in_schema=False)

_STATIC: Final = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
COOKIE_S: Final = 12 * 3600


@router.get("/")
async def show_index(request: Request, api: ApiDep, who: Viewer) -> Response:
    """The fleet on one page. It answers also when nobody leads or Redis is away, and says so."""
    try:
        content, status = await index.read(api), 200
    except (Problem, redis.exceptions.RedisError, ConnectionError, TimeoutError):
        content, status = (
            index.nothing(api.context.keys.fleet, "Redis does not answer. Workers go on as before."),
            503,
        )
    if content["view"] is None:
        status = 503
    return page("index.html", {**content, "who": who, "logout": _has_cookie(request)}, status)


@router.get("/docs")
async def show_docs(request: Request, who: Viewer) -> Response:
    """What the REST face offers, from its own description."""
    app: FastAPI = request.app
    return page(
        "docs.html", {"api": describe.operations(app.openapi()), "who": who, "logout": _has_cookie(request)}
    )


@router.get("/login")
async def show_login() -> Response:
    """Asks for a token."""
    return page("login.html", {"wrong": ""})


@router.post("/login")
async def login(request: Request, api: ApiDep) -> Response:
    """Takes a token into the cookie, if it is one."""
    token = _form(await request.body()).get("token", "").strip()
    try:
        principal = await api.tokens.principal_of(token) if token else None
    except Problem as problem:
        return page("login.html", {"wrong": problem.detail}, problem.status)
    if principal is None:
        return page("login.html", {"wrong": "This token is unknown, expired or revoked."}, 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=COOKIE_S,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
async def logout() -> Response:
    """Forgets the token."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """The stylesheet, the script and the icon."""
    media_type = _STATIC.get(name)
    if media_type is None:
        raise not_found(f"/static/{name}"[:100])
    return Response(_static_file(name), media_type=media_type, headers={"Cache-Control": "no-cache"})


@cache
def _static_file(name: str) -> bytes:
    return (Path(__file__).parent / "static" / name).read_bytes()


def _has_cookie(request: Request) -> bool:
    return COOKIE in request.cookies


def _form(body: bytes) -> dict[str, Any]:
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8)
    except (UnicodeDecodeError, ValueError):
        return {}
    return {name: values[0] for name, values in fields.items()}
