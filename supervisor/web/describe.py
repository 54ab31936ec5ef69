"""The OpenAPI description as something a template can show. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

_METHODS = ("get", "put", "post", "delete")


class Operation(NamedTuple):
    """One method of one path. Schemas are JSON texts."""

    method: str
    path: str
    summary: str
    text: str
    parameters: list[tuple[str, str, str, str]]  # name, where, type, meaning
    body: str
    answers: list[tuple[str, str, str]]  # status, meaning, schema


def operations(api: dict[str, Any]) -> dict[str, Any]:
    """Title, version, and the operations by tag."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in cast("dict[str, dict[str, Any]]", api.get("paths", {})).items():
        for method in _METHODS:
            if method in methods:
                tag = (methods[method].get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(_operation(api, method, path, methods[method]))
    info = cast("dict[str, Any]", api.get("info", {}))
    return {"title": info.get("title", ""), "version": info.get("version", ""), "groups": groups}


def _operation(api: dict[str, Any], method: str, path: str, spec: dict[str, Any]) -> Operation:
    answers: list[tuple[str, str, str]] = []
    for status, answer in cast("dict[str, dict[str, Any]]", spec.get("responses", {})).items():
        # A problem looks the same everywhere: its schema once per operation would bury the rest.
        shown = _content(api, answer) if status.startswith("2") else ""
        answers.append((status, str(answer.get("description", "")), shown))
    return Operation(
        method=method.upper(),
        path=path,
        summary=str(spec.get("summary", "")),
        text=str(spec.get("description", "")),
        parameters=[_parameter(item) for item in spec.get("parameters", [])],
        body=_content(api, spec.get("requestBody", {})),
        answers=answers,
    )


def _parameter(item: dict[str, Any]) -> tuple[str, str, str, str]:
    schema = cast("dict[str, Any]", item.get("schema", {}))
    choices = [schema, *cast("list[dict[str, Any]]", schema.get("anyOf", []))]
    kind = " or ".join(
        str(choice["type"]) for choice in choices if "type" in choice and choice["type"] != "null"
    )
    for choice in choices:
        if "enum" in choice:
            kind = ", ".join(str(value) for value in choice["enum"])
    must = ", needed" if item.get("required") else ""
    return str(item["name"]), str(item["in"]), kind + must, str(item.get("description", ""))


def _content(api: dict[str, Any], holder: dict[str, Any]) -> str:
    for media in cast("dict[str, dict[str, Any]]", holder.get("content", {})).values():
        if schema := media.get("schema"):
            return json.dumps(_resolved(api, schema), indent=2, ensure_ascii=False)
    return ""


def _resolved(api: dict[str, Any], schema: Any, depth: int = 0) -> Any:
    if isinstance(schema, list):
        return [_resolved(api, item, depth) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = cast("dict[str, Any]", schema)
    if "$ref" in found:
        name = str(found["$ref"]).rpartition("/")[2]
        if depth > 3:
            return {"type": name}
        return _resolved(api, api.get("components", {}).get("schemas", {}).get(name, {}), depth + 1)
    return {key: _resolved(api, value, depth) for key, value in found.items() if key != "title"}
