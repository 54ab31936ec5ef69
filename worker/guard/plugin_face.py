"""What a plugin has of its own, reached through the guard that stands in its place.

A tool that calls `session.tts.update_options(language="de")` must work as it did before the plugin was guarded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import structlog

from worker.guard.names import Child, provider_of, unwrap

log = structlog.stdlib.get_logger("worker.guard")

PORTABLE: Final = frozenset({"language", "speed"})
"""Options that mean the same to every provider; a model's or a voice's name belongs to its own."""


class PluginFace:
    """Goes before a livekit plugin class: public attributes that the class has not are the first child's."""

    def __getattr__(self, name: str) -> Any:
        # Never a private one: livekit asks for its own, and a half-built guard has no children yet.
        if name.startswith("_") or (children := _children(self)) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name == "update_options":
            # Raises, as the plugin would, where there are none.
            first: Callable[..., Any] = unwrap(children[0].plugin).update_options
            return partial(_update_options, first, children)
        return getattr(children[0].plugin, name)


def _children(face: Any) -> Sequence[Child[Any]] | None:
    held = cast("dict[str, Any]", vars(face))
    guard: Any = held.get("guard") or held.get("_guard")
    return cast("Sequence[Child[Any]]", guard.children) if guard is not None else None


def _update_options(first: Callable[..., Any], children: Sequence[Child[Any]], **options: Any) -> Any:
    """The first child and those of its kind take all; the others what means the same to them."""
    answer = first(**options)
    head = unwrap(children[0].plugin)
    for child in children[1:]:
        plugin = unwrap(child.plugin)
        update = getattr(plugin, "update_options", None)
        if update is None or plugin is head:
            continue
        alike = type(plugin) is type(head) and provider_of(plugin) == provider_of(head)
        taken = options if alike else _portable(update, options)
        if not taken:
            continue
        try:
            update(**taken)
        except Exception as exc:  # noqa: BLE001 - the one asked for has taken them; a substitute's refusal fails no tool
            log.warning(
                "a substitute did not take the options", action="guard.options_refused", target=child.target,
                options=sorted(taken), error=type(exc).__name__,
            )  # fmt: skip
    return answer


def _portable(update: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(update).parameters
    return {name: value for name, value in options.items() if name in PORTABLE and name in known}
