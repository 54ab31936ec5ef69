"""The Lua scripts of `supervisor/store/lua`: a file's first lines are its signature (KEYS, ARGV, answer)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    import redis.asyncio

NAMES = (
    "acquire", "append", "fields", "forget", "keep", "publish", "refill", "release", "renew", "save",
)  # fmt: skip
Arg = str | bytes | int


@dataclass(frozen=True, slots=True)
class Script:
    """One script; calling it runs it on the server."""

    name: str
    body: str
    sha: str

    async def __call__(self, client: redis.asyncio.Redis, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run it. A server that does not know it yet (restarted, failed over) is given it at once."""
        api = cast("Any", client)
        try:
            return await api.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await api.eval(self.body, len(keys), *keys, *args)


@cache
def script(name: str) -> Script:
    """The script of that name, read once."""
    body = resources.files("supervisor.store").joinpath("lua", f"{name}.lua").read_text("utf-8")
    # The server names scripts by their SHA-1; nothing is secured by it.
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())
