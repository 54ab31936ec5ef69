"""Which target a plugin is: `role:provider:model`, from what the plugin says of itself or from its owner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from supervisor.wire.targets import TargetError, make_target
from supervisor.wire.vocabulary import Role

P = TypeVar("P")

_PLUGINS = "livekit.plugins."
_UNKNOWN = "unknown"
# Attributes under which livekit's wrappers (StreamAdapter) keep the plugin that does the work.
_WRAPPED = ("wrapped_stt", "_wrapped_tts", "_stt", "_tts", "_llm")


@dataclass(frozen=True, slots=True, eq=False)
class Child(Generic[P]):
    """One plugin with its target id, its place in the user's order (0 first) and its key's fingerprint."""

    target: str
    plugin: P
    order: int = 0
    key_fp: str = ""


def unwrap(plugin: Any) -> Any:
    """The plugin inside livekit's own adapters (e.g. `stt.StreamAdapter`); itself when there is none."""
    for _ in range(4):
        if not type(plugin).__module__.startswith("livekit.agents."):
            return plugin
        inner = next((v for name in _WRAPPED if (v := getattr(plugin, name, None)) is not None), None)
        if inner is None:
            return plugin
        plugin = inner
    return plugin


def provider_of(plugin: Any) -> str:
    """`groq` for `livekit.plugins.groq.…`; else what the plugin calls its provider, made fit for an id."""
    inner = unwrap(plugin)
    for cls in type(inner).__mro__:
        if cls.__module__.startswith(_PLUGINS):
            return cls.__module__[len(_PLUGINS) :].split(".", 1)[0]
    label = str(getattr(inner, "label", ""))
    if label.startswith(_PLUGINS):
        return label[len(_PLUGINS) :].split(".", 1)[0]
    name = str(getattr(inner, "provider", "") or _UNKNOWN).strip().lower()
    cleaned = "".join(c if c.isprintable() and c not in "/: " else "-" for c in name)[:64]
    return cleaned or _UNKNOWN


def model_of(plugin: Any) -> str:
    """The model's name as the plugin gives it, or `unknown`."""
    name = str(getattr(unwrap(plugin), "model", "") or _UNKNOWN).strip()
    return "".join(c if c.isprintable() else "-" for c in name) or _UNKNOWN


def children_of(
    role: Role,
    plugins: Sequence[P | Child[P]],
    *,
    names: Mapping[int, tuple[str, str]] | None = None,
) -> tuple[Child[P], ...]:
    """Plugins as children in the order given. `names`: index → (provider, model) where its own are wrong.

    A second plugin with the same id gets `#2` after its model. Raises `TargetError` for unfit names.
    """
    made: list[Child[P]] = []
    taken: set[str] = set()
    for order, item in enumerate(plugins):
        if isinstance(item, Child):
            child = cast("Child[P]", item)
            made.append(Child(child.target, child.plugin, order, child.key_fp))
            taken.add(child.target)
            continue
        provider, model = (names or {}).get(order, (provider_of(item), model_of(item)))
        target = _free(role, provider, model, taken)
        taken.add(target)
        made.append(Child(target, item, order))
    return tuple(made)


def _free(role: Role, provider: str, model: str, taken: Iterable[str]) -> str:
    target = make_target(role, provider, model)
    for number in range(2, 33):
        if target not in taken:
            return target
        target = make_target(role, provider, f"{model}#{number}")
    raise TargetError("more than 32 plugins with the same provider and model")
