"""Commands that change something: override, policy, workers, token."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from supervisor.cli import output as out
from supervisor.cli.client import AsJson, Client, Token, Url
from supervisor.cli.values import parse_value, scope_path, segment, whole_seconds
from supervisor.wire.targets import escape_path
from supervisor.wire.vocabulary import OverrideState, TokenRole

override_app = typer.Typer(
    no_args_is_help=True, help="Overrule verdicts: an operator's word over the engine's."
)
policy_app = typer.Typer(
    no_args_is_help=True, help="The engine's rule numbers, for the fleet, a role or a target."
)
workers_app = typer.Typer(invoke_without_command=True, help="Worker containers: list, show, drain.")
token_app = typer.Typer(no_args_is_help=True, help="Bearer tokens of the REST face (admins only).")

Scope = Annotated[str, typer.Argument(help="a target id, or provider:<name>")]
PolicyScope = Annotated[str, typer.Argument(help="fleet, role:<role> or target:<id>")]


@override_app.command("set")
def override_set(
    scope: Scope,
    state: Annotated[OverrideState, typer.Argument(help="the verdict to force")],
    reason: Annotated[str, typer.Option(help="why; the audit and the page show it")],
    ttl: Annotated[str, typer.Option(help="runs out after this long, e.g. 10m, at most 24h")] = "10m",
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Force a target or a provider healthy or unhealthy, or only watch it, until the time runs out.

    Example: supervisor override set provider:groq forced_unhealthy --reason "their incident 4711" --ttl 30m
    """
    body = {"state": state.value, "reason": reason, "ttl_s": whole_seconds(ttl)}
    answer = Client(url, token).call("PUT", scope_path(scope), body=body)
    if as_json:
        out.print_json(answer)
    else:
        out.say(f"{answer['scope']} is {answer['state']} until {out.clock(answer['expires_at'])}")


@override_app.command("clear")
def override_clear(scope: Scope, url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """Take an override back: the engine's own verdict holds again.

    Example: supervisor override clear llm:groq:llama-3.3-70b-versatile
    """
    Client(url, token).call("DELETE", scope_path(scope))
    if as_json:
        out.print_json({"scope": scope, "cleared": True})
    else:
        out.say(f"{scope}: the engine's own verdict holds again")


@override_app.command("list")
def override_list(url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """Overrides in force. Example: supervisor override list --json"""
    items = Client(url, token).items("/v1/overrides")
    if as_json:
        out.print_json({"items": items})
        return
    out.print_table(
        ("scope", "state", "by", "set", "until", "reason"),
        (
            (
                item["scope"],
                out.state_text(item["state"]),
                item["actor"],
                out.clock(item["set_at"]),
                out.clock(item["expires_at"]),
                item["reason"],
            )
            for item in items
        ),
        "no overrides",
    )


@policy_app.command("list")
def policy_list(
    rules: Annotated[bool, typer.Option("--rules", help="every number there is, with its bounds")] = False,
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Policies that were set; elsewhere the built-in numbers hold. Example: supervisor policy list --rules"""
    client = Client(url, token)
    items = client.items("/v1/policies")
    known = client.call("GET", "/v1/policies", params={"limit": 1})["rules"]
    if as_json:
        out.print_json({"items": items, "rules": known})
    elif rules:
        out.print_table(
            ("number", "default", "from", "to", "meaning"),
            ((rule["name"], rule["default"], rule["low"], rule["high"], rule["text"]) for rule in known),
            "",
        )
    else:
        out.print_table(
            ("scope", "values", "by", "reason"),
            (
                (
                    item["scope"],
                    ", ".join(f"{name}={value}" for name, value in sorted(item["values"].items())),
                    item["actor"],
                    item["reason"],
                )
                for item in items
            ),
            "no policies: the built-in numbers hold everywhere (see them with --rules)",
        )


def _policy_path(scope: str) -> str:
    return f"/v1/policies/{segment(escape_path(scope))}"


@policy_app.command("set")
def policy_set(
    scope: PolicyScope,
    values: Annotated[list[str], typer.Argument(help="name=value …", metavar="NAME=VALUE...")],
    reason: Annotated[str, typer.Option(help="why; the audit shows it")] = "set on the command line",
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Set rule numbers of a scope; those set before stay. Refused when another operator was quicker.

    Example: supervisor policy set role:llm run_base=6 slow_ms=2000
    """
    client = Client(url, token)
    wanted = dict(parse_value(text) for text in values)
    path = _policy_path(scope)
    tag = client.etag(path)
    before: dict[str, Any] = client.call("GET", path)["values"] if tag else {}
    answer = client.call(
        "PUT",
        path,
        body={"values": {**before, **wanted}, "reason": reason},
        headers={"If-Match": tag} if tag else None,
    )
    if as_json:
        out.print_json(answer)
    else:
        out.say(f"{scope}: " + ", ".join(f"{k}={v}" for k, v in sorted(answer["values"].items())))


@policy_app.command("clear")
def policy_clear(scope: PolicyScope, url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """Back to the built-in numbers for a scope. Example: supervisor policy clear role:llm"""
    Client(url, token).call("DELETE", _policy_path(scope), headers={"If-Match": "*"})
    if as_json:
        out.print_json({"scope": scope, "cleared": True})
    else:
        out.say(f"{scope}: the built-in numbers hold again")


@workers_app.callback()
def workers_default(
    context: typer.Context, url: Url = "", token: Token = "", as_json: AsJson = False
) -> None:
    """Worker containers; without a further word, the list. Example: supervisor workers --json"""
    if context.invoked_subcommand is None:
        workers_list(url, token, as_json)


@workers_app.command("list")
def workers_list(url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """All workers: calls, revision, lag, and what is wrong with them. Example: supervisor workers list"""
    items = Client(url, token).items("/v1/workers")
    if as_json:
        out.print_json({"items": items})
        return
    out.print_table(
        ("worker", "host", "state", "calls", "revision", "lag", "last report", "wrong"),
        (
            (
                item["id"],
                item["host"],
                item["state"] or "gone",
                item["sessions"],
                item["revision"],
                f"{item['apply_lag_ms']} ms",
                out.ago(item["last_report_at"]),
                item["flagged"] or ", ".join(item["local_open"]),
            )
            for item in items
        ),
        "no workers",
    )


@workers_app.command("show")
def workers_show(
    worker: Annotated[str, typer.Argument(help="worker id")],
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Everything known of one worker. Example: supervisor workers show worker-1"""
    found = Client(url, token).call("GET", f"/v1/workers/{segment(worker)}")
    if as_json:
        out.print_json(found)
    else:
        out.print_members(found)


@workers_app.command("drain")
def workers_drain(
    worker: Annotated[str, typer.Argument(help="worker id")],
    reason: Annotated[str, typer.Option(help="why")] = "drained on the command line",
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Take no new calls, let those it has come to their end, then leave. Example: supervisor workers drain worker-1"""
    answer = Client(url, token).call("POST", f"/v1/workers/{segment(worker)}/drain", body={"reason": reason})
    if as_json:
        out.print_json(answer)
    else:
        out.say(f"{worker} was asked to drain")


@token_app.command("create")
def token_create(
    role: Annotated[TokenRole, typer.Argument(help="viewer looks, operator overrules, admin does all")],
    note: Annotated[str, typer.Option(help="whose it is, or what for")] = "",
    ttl: Annotated[str, typer.Option(help="runs out after this long, e.g. 90d; default: never")] = "",
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Make a token; it is shown this once. Example: supervisor token create viewer --note grafana --ttl 90d"""
    body = {"role": role.value, "note": note, "ttl_s": whole_seconds(ttl) if ttl else None}
    answer = Client(url, token).call("POST", "/v1/tokens", body=body)
    if as_json:
        out.print_json(answer)
    else:
        out.say(answer["token"])
        out.complain(f"token {answer['id']} ({answer['role']}): keep it now, it is never shown again")


@token_app.command("list")
def token_list(url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """Tokens by id, without the tokens. Example: supervisor token list"""
    items = Client(url, token).items("/v1/tokens")
    if as_json:
        out.print_json({"items": items})
        return
    out.print_table(
        ("id", "role", "made", "expires", "note"),
        (
            (
                item["id"],
                item["role"],
                (item["created_at"] or "-")[:10],
                (item["expires_at"] or "never")[:10],
                item["note"],
            )
            for item in items
        ),
        "no tokens",
    )


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(help="id, as `supervisor token list` shows it")],
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Revoke a token: refused everywhere within a second. Example: supervisor token revoke tok-1a2b3c"""
    Client(url, token).call("DELETE", f"/v1/tokens/{segment(token_id)}")
    if as_json:
        out.print_json({"id": token_id, "revoked": True})
    else:
        out.say(f"{token_id} is revoked")
