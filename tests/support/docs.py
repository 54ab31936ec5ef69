"""Generated parts of the docs: `python -m tests.support.docs` writes them, a test compares them.

A part stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`; `PARTS` names its file and maker.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.core import policy, transitions

ROOT = Path(__file__).resolve().parents[2]


def settings_table(module: str, cls: str, prefix: str) -> str:
    """A Markdown table of a pydantic-settings class: variable, default, meaning."""
    if importlib.util.find_spec(module.split(".")[0]) is None or not _exists(module):
        return ""
    model: Any = getattr(importlib.import_module(module), cls)
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        names = [str(choice) for choice in getattr(alias, "choices", [alias] if alias else [])]
        variables = " or ".join(f"`{each}`" for each in names or [f"{prefix}{name.upper()}"])
        rows.append(f"| {variables} | {_default(field)} | {field.description or ''} |")
    return "\n".join(rows)


def _exists(module: str) -> bool:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py").exists()


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "made at start"
    value: Any = field.default
    secret: Any = getattr(value, "get_secret_value", None)
    value = secret() if secret is not None else getattr(value, "value", value)
    if value is None or value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _supervisor_settings() -> str:
    return settings_table("supervisor.settings", "SupervisorSettings", "SUPERVISOR_")


def _worker_settings() -> str:
    return settings_table("worker.settings", "WorkerSettings", "WORKER_")


def _engine_states() -> str:
    return f"```mermaid\n{transitions.mermaid()}\n```"


def _engine_policy() -> str:
    rows = ["| number | default | bounds | meaning |", "|---|---|---|---|"]
    for rule in policy.described():
        bounds = "yes or no" if rule.low is None else f"{rule.low:g} … {rule.high:g}"
        differs = [
            f"{role.value} `{values[rule.name]}`"
            for role, values in policy.ROLE_DEFAULTS.items()
            if rule.name in values
        ]
        default = ", ".join([f"`{rule.default}`", *differs])
        rows.append(f"| `{rule.name}` | {default} | {bounds} | {rule.text} |")
    return "\n".join(rows)


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "engine-states": ("docs/engine.md", _engine_states),
    "engine-policy": ("docs/engine.md", _engine_policy),
    "supervisor-settings": ("docs/operations.md", _supervisor_settings),
    "worker-settings": ("docs/operations.md", _worker_settings),
}


def replace_part(text: str, name: str, body: str) -> str:
    """`text` with the part `name` replaced. Raises `LookupError` unless it is marked exactly once."""
    marked = re.compile(
        rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", re.DOTALL
    )
    if len(marked.findall(text)) != 1:
        raise LookupError(f"the markers of {name} must be there exactly once")
    return marked.sub(lambda m: m[1] + (f"{body}\n" if body else "") + m[2], text)


def main() -> None:
    """Write every generated part anew."""
    for name, (path, make) in PARTS.items():
        file = ROOT / path
        file.write_text(replace_part(file.read_text(encoding="utf-8"), name, make()), encoding="utf-8")


if __name__ == "__main__":
    main()
