"""`/v1/targets/{id}/override`, `/v1/providers/{provider}/override`, `/v1/overrides`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from supervisor.api.base import ApiDep, Operator, Page, TargetIdPath, View, find_target, problems
from supervisor.api.etags import IfMatch
from supervisor.api.overrides import service
from supervisor.api.overrides.schemas import OverrideIn, OverrideOut
from supervisor.api.paging import Cursor, Limit, page_of
from supervisor.api.problems import not_found

router = APIRouter(tags=["overrides"])
_ERRORS = problems(400, 404, 412, 422, 503, 504)


async def known_provider(
    provider: Annotated[str, Path(min_length=1, max_length=64, examples=["groq"])], view: View
) -> str:
    """The scope of a provider that some target has. Raises `Problem` 404."""
    if all(target.provider != provider for target in view.targets):
        raise not_found(f"provider {provider}", "GET /v1/targets shows the providers that workers report")
    return f"provider:{provider}"


ProviderScope = Annotated[str, Depends(known_provider)]


@router.get("/overrides", summary="Overrides in force", responses=problems(503))
async def list_overrides(api: ApiDep, limit: Limit = 100, cursor: Cursor = None) -> Page[OverrideOut]:
    """Every override in force, by scope."""
    records = sorted((await api.records.overrides()).values(), key=lambda record: record.scope)
    page, following = page_of(records, lambda record: record.scope, cursor, limit)
    return Page(items=[service.represent(record) for record in page], next=following)


@router.get("/targets/{target_id}/override", summary="A target's override", responses=problems(400, 404, 503))
async def get_target_override(target_id: TargetIdPath, api: ApiDep, response: Response) -> OverrideOut:
    """The override of this target, with its ETag."""
    record = await service.read(api, target_id)
    response.headers["ETag"] = service.tag_of(record)
    return service.represent(record)


@router.put("/targets/{target_id}/override", summary="Overrule a target's verdict", responses=_ERRORS)
async def put_target_override(
    target_id: TargetIdPath,
    body: OverrideIn,
    api: ApiDep,
    who: Operator,
    view: View,
    response: Response,
    if_match: IfMatch = None,
) -> OverrideOut:
    """Force a target healthy or unhealthy, or only watch it, until the time runs out."""
    find_target(view, target_id)
    found, response.headers["ETag"] = await service.put(api, who, target_id, body, if_match)
    return found


@router.delete(
    "/targets/{target_id}/override", status_code=204, summary="Take an override back", responses=_ERRORS
)
async def delete_target_override(
    target_id: TargetIdPath, api: ApiDep, who: Operator, if_match: IfMatch = None
) -> None:
    """The engine's own verdict holds again."""
    await service.delete(api, who, target_id, if_match)


@router.get("/providers/{provider}/override", summary="A provider's override", responses=problems(404, 503))
async def get_provider_override(scope: ProviderScope, api: ApiDep, response: Response) -> OverrideOut:
    """The override of the whole provider, with its ETag."""
    record = await service.read(api, scope)
    response.headers["ETag"] = service.tag_of(record)
    return service.represent(record)


@router.put("/providers/{provider}/override", summary="Overrule a whole provider", responses=_ERRORS)
async def put_provider_override(
    scope: ProviderScope,
    body: OverrideIn,
    api: ApiDep,
    who: Operator,
    response: Response,
    if_match: IfMatch = None,
) -> OverrideOut:
    """The same for every target of a provider."""
    found, response.headers["ETag"] = await service.put(api, who, scope, body, if_match)
    return found


@router.delete(
    "/providers/{provider}/override",
    status_code=204,
    summary="Take a provider's override back",
    responses=_ERRORS,
)
async def delete_provider_override(
    scope: ProviderScope, api: ApiDep, who: Operator, if_match: IfMatch = None
) -> None:
    """The engine's own verdicts hold again."""
    await service.delete(api, who, scope, if_match)
