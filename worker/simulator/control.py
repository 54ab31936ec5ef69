"""The operator's side: faults, behaviour, requests, status pages, health; and the providers' cheap checks."""

from __future__ import annotations

import math
import uuid
from typing import Any, cast, get_args

import msgspec
from aiohttp import web

from worker.simulator.answers import ContinueMode
from worker.simulator.errors import rate_headers
from worker.simulator.faults import PROVIDERS, FaultError, parse_fault
from worker.simulator.ledger import as_json
from worker.simulator.stand import STAND, fail, json_body, noted, provider_of

__all__ = ["add_check_routes", "add_control_routes"]

_PAGES = (*PROVIDERS, "deepgram")
_INDICATORS = {
    "none": "All Systems Operational",
    "minor": "Partially Degraded Service",
    "major": "Partial System Outage",
    "critical": "Major Service Outage",
    "maintenance": "Service Under Maintenance",
}


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _wrong(sentence: str) -> web.Response:
    return _json({"title": "That cannot be done", "status": 422, "detail": sentence}, 422)


def _target(request: web.Request) -> tuple[str, str, str]:
    info = request.match_info
    return info["role"], info["provider"], info.get("model", "")


async def put_fault(request: web.Request) -> web.Response:
    """``PUT /faults/{role}/{provider}[/{model}]``: the fault in force, or 422 with one sentence."""
    role, provider, model = _target(request)
    try:
        try:
            body: object = msgspec.json.decode(await request.read())
        except msgspec.DecodeError:
            raise FaultError("the body is not JSON") from None
        fault = parse_fault(role, provider, body)
    except FaultError as error:
        return _wrong(str(error))
    request.app[STAND].set_fault(role, provider, model, fault)
    shown = cast("dict[str, object]", msgspec.to_builtins(fault))
    return _json({"role": role, "provider": provider, "model": model or None, **shown})


async def get_faults(request: web.Request) -> web.Response:
    """``GET /faults``: all in force."""
    return _json({"items": request.app[STAND].faults.items()})


async def delete_faults(request: web.Request) -> web.Response:
    """``DELETE /faults[/{role}/{provider}[/{model}]]``."""
    info = request.match_info
    request.app[STAND].clear_faults(info.get("role"), info.get("provider"), info.get("model"))
    return web.Response(status=204)


async def put_behaviour(request: web.Request) -> web.Response:
    """``PUT /behaviour/llm/{provider}/{model}``: how the model goes on after a cut."""
    provider, model = request.match_info["provider"], request.match_info["model"]
    body = await json_body(request) or {}
    mode = body.get("continue")
    if provider not in ("groq", "openai"):
        return _wrong(f"the stand-in for {provider} has no llm; groq and openai have")
    if mode not in get_args(ContinueMode):
        return _wrong(f"'continue' must be one of {', '.join(get_args(ContinueMode))}")
    request.app[STAND].continue_modes[provider, model] = cast("ContinueMode", mode)
    return _json({"provider": provider, "model": model, "continue": mode})


async def get_requests(request: web.Request) -> web.Response:
    """``GET /requests?role=&provider=&model=&kind=&fault=&since=&limit=``, oldest first."""
    query = request.query
    numbers: dict[str, int | None] = {"since": None, "limit": None}
    for name in numbers:
        if (given := query.get(name)) is None:
            continue
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e15:
            return _wrong(
                f"'{name}' must be a number of {'milliseconds' if name == 'since' else 'items'} from 0"
            )
        numbers[name] = int(value)
    items = request.app[STAND].ledger.select(
        role=query.get("role"),
        provider=query.get("provider"),
        model=query.get("model"),
        kind=query.get("kind"),
        fault=query.get("fault"),
        since=numbers["since"],
        limit=numbers["limit"],
    )
    return _json(as_json(items))


async def delete_requests(request: web.Request) -> web.Response:
    """``DELETE /requests``."""
    request.app[STAND].ledger.clear()
    return web.Response(status=204)


async def healthz(request: web.Request) -> web.Response:
    """``GET /healthz``."""
    return _json({"status": "ok", "faults": len(request.app[STAND].faults.items())})


async def put_status(request: web.Request) -> web.Response:
    """``PUT /status/{provider}`` with ``{"indicator": "major", "description": "…"}``."""
    provider = request.match_info["provider"]
    body = await json_body(request) or {}
    indicator = body.get("indicator")
    description = body.get("description", "")
    if provider not in _PAGES:
        return _wrong(f"there is no status page for '{provider}'; there are {', '.join(_PAGES)}")
    if indicator not in _INDICATORS:
        return _wrong(f"'indicator' must be one of {', '.join(_INDICATORS)}")
    if not isinstance(description, str):
        return _wrong("'description' must be text")
    request.app[STAND].status_pages[provider] = (indicator, description)
    return _json({"provider": provider, "indicator": indicator, "description": description})


async def status_page(request: web.Request) -> web.Response:
    """The provider's status page as JSON, in Atlassian Statuspage's shape."""
    provider = request.match_info["provider"]
    if provider not in _PAGES:
        raise web.HTTPNotFound
    indicator, description = request.app[STAND].status_pages.get(provider, ("none", ""))
    return _json(
        {
            "page": {"id": f"{provider}-stand-in", "name": provider.capitalize(), "time_zone": "Etc/UTC"},
            "components": [],
            "incidents": [],
            "scheduled_maintenances": [],
            "status": {"indicator": indicator, "description": description or _INDICATORS[indicator]},
        }
    )


async def _check(request: web.Request, kind: str, body: object) -> web.StreamResponse:
    stand, provider = request.app[STAND], provider_of(request)
    fault = stand.faults.pick("check", provider, "")
    record = stand.open(request, kind, "check", provider, "", fault)
    async with noted(record):
        if (failed := await fail(request, record, fault)) is not None:
            return failed
        record.status = 200
        response = _json(body)
        if provider != "cartesia":
            response.headers.update(rate_headers())
        response.headers["x-request-id"] = str(uuid.uuid4())
        return response


async def models(request: web.Request) -> web.StreamResponse:
    """``GET /models`` of Groq and OpenAI."""
    return await _check(request, "models", {"object": "list", "data": []})


async def voices(request: web.Request) -> web.StreamResponse:
    """Cartesia's ``GET /voices``."""
    return await _check(request, "voices", {"data": [], "has_more": False, "next_page": None})


async def root(request: web.Request) -> web.StreamResponse:
    """Cartesia's ``GET /``, which needs no key."""
    stand = request.app[STAND]
    fault = stand.faults.pick("check", "cartesia", "")
    record = stand.open(request, "root", "check", "cartesia", "", fault)
    async with noted(record):
        if fault.fault != "ok" and (failed := await fail(request, record, fault)) is not None:
            return failed
        record.status = 200
        return _json({"ok": True, "version": "stand-in"})


def add_check_routes(app: web.Application, bases: dict[str, str]) -> None:
    """The cheap checks below each provider's base path."""
    for provider, base in bases.items():
        if provider == "cartesia":
            app.router.add_get(base, root)
            app.router.add_get(f"{base}/", root)
            app.router.add_get(f"{base}/voices", voices)
        else:
            app.router.add_get(f"{base}/models", models)


def add_control_routes(app: web.Application) -> None:
    """Faults, behaviour, requests, status pages and health."""
    target = "/faults/{role}/{provider}"
    routes: list[Any] = [
        web.put(target, put_fault),
        web.put(target + "/{model:.+}", put_fault),
        web.get("/faults", get_faults),
        web.delete("/faults", delete_faults),
        web.delete(target, delete_faults),
        web.delete(target + "/{model:.+}", delete_faults),
        web.put("/behaviour/llm/{provider}/{model:.+}", put_behaviour),
        web.get("/requests", get_requests),
        web.delete("/requests", delete_requests),
        web.get("/healthz", healthz),
        web.put("/status/{provider}", put_status),
        web.get("/status/{provider}/api/v2/summary.json", status_page),
        web.get("/status/{provider}/api/v2/status.json", status_page),
    ]
    app.router.add_routes(routes)
