"""The engine as the runtime sees it: `supervisor.core.engine`, whose state is nobody's business out here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from supervisor.core.effects import Effect
    from supervisor.core.inputs import Input
    from supervisor.wire.view import FleetView


class Engine(Protocol):
    """Pure functions over one opaque state."""

    def new_state(self) -> Any: ...

    def step(self, state: Any, item: Input, now_ms: int, /) -> tuple[Any, list[Effect]]: ...

    def view(self, state: Any, now_ms: int, leader: str, /) -> FleetView: ...

    def dump(self, state: Any, /) -> bytes: ...

    def load(self, data: bytes, /) -> Any: ...


def real_engine() -> Engine:
    """The engine of this build."""
    from supervisor.core import engine

    return cast("Engine", engine)
