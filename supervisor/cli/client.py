"""The REST face as the command line uses it; every failure becomes one line with its remedy."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

import httpx
import typer

from supervisor.cli.errors import CliError

TIMEOUT_S = 10.0
# A stream says something at least every 10 s; silence for three times as long is a dead connection.
STREAM_SILENCE_S = 30.0
MAX_ITEMS = 10_000
_PAGE = 500
_LOCAL = {"localhost", "127.0.0.1", "::1"}

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="SUPERVISOR_URL",
        help="address of a supervisor",
        show_default="http://127.0.0.1:8080",
    ),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="SUPERVISOR_TOKEN",
        show_envvar=True,
        help="bearer token; not needed on loopback without tokens",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def base_url(url: str) -> str:
    """The address to ask: the given one, else this machine's supervisor (with SUPERVISOR_PORT)."""
    url = (url or f"http://127.0.0.1:{os.environ.get('SUPERVISOR_PORT') or 8080}").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(f"--url: {url!r} is no address; write http://host:8080", 2)
    return url


def _remedy(body: dict[str, Any]) -> str:
    detail = str(body.get("detail") or body.get("title") or "the request failed")
    remedy = body.get("remedy")
    return f"{detail}; {remedy}" if remedy else detail


class Client:
    """One supervisor. Every method raises `CliError`."""

    def __init__(self, url: str, token: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = base_url(url)
        headers = {"Accept": "application/json"}
        if token:
            if not token.isascii() or not token.isprintable():
                raise CliError("--token: holds characters that no token has", 2)
            headers["Authorization"] = f"Bearer {token}"
        local = urlsplit(self.url).hostname in _LOCAL
        # A proxy of the environment must not stand between this machine and itself.
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, trust_env=not local)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
        good: tuple[int, ...] = (),
    ) -> Any:
        """The answer's JSON (None without a body). Statuses of `good` are answers, not failures."""
        try:
            answer = self._http.request(method, path, json=body, headers=headers, params=params)
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from None
        data = self._json(answer)
        if answer.is_success or answer.status_code in good:
            return data
        raise _failed(answer.status_code, data)

    def etag(self, path: str) -> str | None:
        """The ETag of what is there, or None."""
        try:
            answer = self._http.get(path)
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from None
        if answer.status_code == 404:
            return None
        if not answer.is_success:
            raise _failed(answer.status_code, self._json(answer))
        return answer.headers.get("etag")

    def items(self, path: str, most: int = MAX_ITEMS, **params: Any) -> list[dict[str, Any]]:
        """All items of a list, over its pages, `most` at most."""
        wanted = {name: value for name, value in params.items() if value not in {None, ""}}
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(found) < most:
            page = {**wanted, "limit": min(_PAGE, most - len(found))}
            answer = self.call("GET", path, params={**page, "cursor": cursor} if cursor else page)
            found.extend(cast("list[dict[str, Any]]", answer["items"]))
            cursor = answer.get("next")
            if not cursor:
                break
        return found[:most]

    @contextmanager
    def stream(
        self, path: str, params: dict[str, Any], last_id: str
    ) -> Generator[Iterator[tuple[str, str, Any]]]:
        """Server-sent events as (id, name, data)."""
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        timeout = httpx.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S)
        try:
            with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _failed(answer.status_code, self._json(answer))
                yield parse_events(answer.iter_lines())
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from None

    def _json(self, answer: httpx.Response) -> Any:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise CliError(
                f"{self.url} answered {answer.status_code} with something that is no JSON; is it a supervisor?"
            ) from None

    def _unreachable(self, exc: httpx.HTTPError) -> CliError:
        if isinstance(exc, httpx.TimeoutException):
            return CliError(
                f"{self.url} does not answer; is the supervisor stuck? try `supervisor healthcheck`"
            )
        return CliError(f"cannot reach {self.url}; start `supervisor serve`, or give --url or SUPERVISOR_URL")


def _failed(status: int, data: Any) -> CliError:
    if isinstance(data, dict):
        said = cast("dict[str, Any]", data)
        if status == 401:
            said = {
                **said,
                "remedy": "give it with --token or SUPERVISOR_TOKEN; an admin makes one: `token create`",
            }
        return CliError(_remedy(said))
    return CliError(f"the supervisor answered {status}")


def parse_events(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    """Lines of an event stream to (id, name, data); an id without data comes as ("<id>", "", None)."""
    event_id, name, data = "", "", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            event_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif line == "":
            if data:
                yield event_id, name, json.loads("\n".join(data))
            elif event_id:
                yield event_id, "", None
            name, data = "", []
