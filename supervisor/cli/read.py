"""Commands that look: status, targets, sessions, faults, tail, healthcheck."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from supervisor.cli import output as out
from supervisor.cli.client import AsJson, Client, Token, Url
from supervisor.cli.errors import CliError
from supervisor.cli.values import parse_duration, segment, target_segment

RECONNECT_S = 1.0


def status(url: Url = "", token: Token = "", as_json: AsJson = False) -> None:
    """The fleet in one glance. Exit code 1 when nobody leads or a role has nothing left to admit.

    Example: supervisor status --json
    """
    client = Client(url, token)
    fleet = client.call("GET", "/v1/fleet")
    targets = client.items("/v1/targets")
    bad = bool(fleet["panic_roles"]) or any(role["admitted"] == 0 for role in fleet["roles"])
    if as_json:
        out.print_json({**fleet, "healthy": not bad, "items": targets})
    else:
        out.say(
            f"fleet {fleet['fleet']}: leader {fleet['leader']}, revision {fleet['revision']}, "
            f"{out.counted(fleet['workers'], 'worker')}, {out.counted(fleet['sessions'], 'call')}, "
            f"{out.counted(fleet['targets'], 'target')}"
        )
        for role in fleet["roles"]:
            states = ", ".join(f"{count} {state}" for state, count in sorted(role["states"].items()))
            out.say(
                f"  {role['role']}: {states}" + ("  PANIC: nothing healthy is left" if role["panic"] else "")
            )
        for target in targets:
            if target["state"] != "healthy" or target["override"]:
                out.say(f"  {target['id']}: {target['override'] or target['state']}: {target['reason']}")
        if fleet["workers_flagged"]:
            flagged = out.counted(fleet["workers_flagged"], "worker")
            out.say(f"  trouble of their own: {flagged}; see `supervisor workers list`")
        if fleet["settling_until"]:
            out.say(f"  settling after a gap in the reports until {out.clock(fleet['settling_until'])}")
    if bad:
        raise typer.Exit(1)


def targets(
    target: Annotated[str, typer.Argument(help="only this one, with its evidence", show_default=False)] = "",
    role: Annotated[str, typer.Option(help="only stt, llm, tts or realtime", show_default=False)] = "",
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Targets in rank order with their states and reasons.

    Example: supervisor targets llm:groq:llama-3.3-70b-versatile
    """
    client = Client(url, token)
    if target:
        found = client.call("GET", f"/v1/targets/{target_segment(target)}")
        if as_json:
            out.print_json(found)
        else:
            out.print_members(found)
        return
    items = client.items("/v1/targets", role=role)
    if as_json:
        out.print_json({"items": items})
        return
    out.print_table(
        ("target", "state", "override", "since", "admit", "faults 10 s", "p95", "workers", "reason"),
        (
            (
                item["id"],
                out.state_text(item["state"]),
                out.state_text(item["override"] or ""),
                out.ago(item["since"]),
                out.percent(item["admit"]),
                f"{item['faults']}/{item['attempts']}",
                f"{item['first_output_p95_ms']} ms" if item["first_output_p95_ms"] else "-",
                item["workers"],
                item["reason"],
            )
            for item in items
        ),
        "no targets yet: no worker has reported",
    )


def probe(
    target: Annotated[str, typer.Argument(help="target id")],
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Ask for one probe of a target now: a minimal real request (it costs a little).

    Example: supervisor probe tts:cartesia:sonic-3
    """
    answer = Client(url, token).call("POST", f"/v1/targets/{target_segment(target)}/probe")
    if as_json:
        out.print_json(answer)
    else:
        out.say(f"asked for a probe of {target}; follow it with `supervisor tail`")


def sessions(
    session: Annotated[str, typer.Argument(help="only this call", show_default=False)] = "",
    ended: Annotated[bool, typer.Option("--ended", help="those that ended, newest first")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Calls: turns, errors (faults of all attempts), failovers, apologies, longest silence.

    Example: supervisor sessions --ended --limit 20
    """
    client = Client(url, token)
    if session:
        items = [client.call("GET", f"/v1/sessions/{segment(session)}")]
    else:
        items = client.items("/v1/sessions", limit, status="ended" if ended else "live")
    if as_json:
        out.print_json(items[0] if session else {"items": items})
        return
    out.print_table(
        ("call", "worker", "began", "turns", "errors", "failovers", "apologies", "silence", "outcome"),
        (
            (
                item["id"],
                item["worker"],
                out.ago(item["started_at"]),
                item["turns"],
                _errors(item["errors"]),
                item["failovers"],
                item["apologies"],
                f"{item['longest_silence_ms']} ms",
                item["outcome"] or ("live" if item["live"] else "ended"),
            )
            for item in items
        ),
        "no calls",
    )


def _errors(by_role: Mapping[str, Mapping[str, int]]) -> str:
    """`llm 2 server, 1 cut; tts 1 connect`."""
    return "; ".join(
        f"{role} " + ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        for role, kinds in by_role.items()
        if kinds
    )


def faults(
    target: Annotated[str, typer.Option(help="only this target's", show_default=False)] = "",
    kind: Annotated[str, typer.Option(help="only of this kind, e.g. rate_limit", show_default=False)] = "",
    worker: Annotated[str, typer.Option(help="only this worker's", show_default=False)] = "",
    session: Annotated[str, typer.Option(help="only this call's", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Faults, newest first, one line each.

    Example: supervisor faults --kind rate_limit --limit 20
    """
    items = Client(url, token).items(
        "/v1/faults", limit, target=target, kind=kind, worker=worker, session=session
    )
    if as_json:
        out.print_json({"items": items})
        return
    out.print_table(
        ("at", "target", "kind", "status", "phase", "waited", "worker", "done about it", "message"),
        (_fault_row(item) for item in items),
        "no faults",
    )


def _fault_row(item: dict[str, Any]) -> tuple[Any, ...]:
    return (
        out.clock(item["at"]),
        item["target"],
        item.get("fault_kind") or item["kind"],
        item["status"] or "-",
        item["phase"],
        f"{item['waited_ms']} ms",
        item["worker"],
        item["action"],
        item["message"],
    )


def _event_line(kind: str, data: dict[str, Any]) -> str:
    if kind == "fault":
        status_code = f" {data['status']}" if data["status"] else ""
        return (
            f"{out.clock(data['at'])} fault    {data['target']} {data['fault_kind']}{status_code} "
            f"after {data['waited_ms']} ms on {data['worker']}: {data['message']}"
        )
    change = f" {data['before']} → {data['after']}" if data.get("after") else ""
    what = data.get("target") or data.get("worker") or ""
    return f"{out.clock(data.get('at'))} {kind:<8} {what}{change} {data.get('reason', '')}".rstrip()


def tail(
    kinds: Annotated[
        str, typer.Option(help="only these, comma-separated, e.g. verdict,fault", show_default=False)
    ] = "",
    since: Annotated[str, typer.Option(help="go on after this event id", show_default=False)] = "",
    run_for: Annotated[
        str, typer.Option("--for", help="end after this long, e.g. 60s", show_default=False)
    ] = "",
    count: Annotated[int, typer.Option(min=0, help="end after so many events; 0: never")] = 0,
    url: Url = "",
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Follow verdicts, faults and leader changes as they happen; nothing is lost over a reconnect.

    With --json one object a line. Example: supervisor tail --kinds verdict --json
    """
    client = Client(url, token)
    until_mono = time.monotonic() + parse_duration(run_for) if run_for else None
    last_id, seen, connected = since, 0, False
    while True:
        try:
            with client.stream("/v1/stream", {"kinds": kinds} if kinds else {}, last_id) as events:
                connected = True
                for event_id, kind, data in events:
                    last_id = event_id or last_id
                    if kind:
                        if as_json:
                            out.print_line_json({"event_id": event_id, **data})
                        else:
                            out.say(_event_line(kind, data))
                        seen += 1
                    if (count and seen >= count) or (until_mono and time.monotonic() >= until_mono):
                        return
        except CliError as exc:
            if not connected:
                raise
            out.complain(f"{exc} (trying again)")
        if until_mono and time.monotonic() >= until_mono:
            return
        time.sleep(RECONNECT_S)  # a command of its own, with nothing else to do meanwhile


def healthcheck(url: Url = "", as_json: AsJson = False) -> None:
    """Is this supervisor alive: exit code 0 or 1, for container health checks. Needs no token.

    Example: supervisor healthcheck --url http://127.0.0.1:8080
    """
    health = Client(url, "", timeout_s=4.0).call("GET", "/healthz", good=(503,))
    if as_json:
        out.print_json(health)
    elif health.get("status") == "ok":
        out.say(f"ok: {health['role']}, redis {health['redis']}, revision {health['revision']}")
    else:
        out.complain("; ".join(health.get("problems") or [str(health.get("detail", "failing"))]))
    if health.get("status") != "ok":
        raise typer.Exit(1)
