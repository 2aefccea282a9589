"""``holdfast verify``: whether all members hold the same as the primary."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.columns import print_columns
from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.errors import BadInput, Refused, Unreachable

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

POLL_SECONDS = 0.5
SILENT_SECONDS = 60.0
DIFFERENT = 1


def verify(
    members: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MEMBER ...]", help="Which members [default: all replicas]"),
    ] = None,
    tables: Annotated[
        list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")
    ] = None,
    rate: Annotated[
        int, typer.Option("--rate", min=0, help="At most this many rows per second; 0: no limit.")
    ] = 0,
    max_load: Annotated[
        int,
        typer.Option(
            "--max-load",
            min=0,
            help="Pause while the server runs more threads than this; 0: never.",
        ),
    ] = 0,
    anew: Annotated[
        bool, typer.Option("--anew", help="Start from the beginning, not where it was interrupted.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Clone each member that differs, one after another.")
    ] = False,
    last: Annotated[
        bool, typer.Option("--last", help="Only show what the last verification has found.")
    ] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the verification that is under way.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the first member has begun.")
    ] = False,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare the tables of replicas with the primary's, a piece at a time, while all servers are in use.

    One member after another. After a failover or a restart it continues by itself; --stop ends it. Exits with 1
    if anything differs, or could not be compared. On a schedule: holdfast config set verify_every 7d
    """
    client, name = connect(manager, token_file, cluster)
    chosen = _chosen(client, name, members or [])
    if last or stop:
        for member in chosen if stop else ():
            client.verify_member(name, member, {"stop": True})
        _show(client, name, chosen, as_json)
        return
    for table in tables or []:
        if not all(table.partition(".")):
            raise BadInput("--table", f"must be SCHEMA.TABLE, not {table!r}")
    if repair and tables:
        raise BadInput("--repair", "replaces a whole member: leave --table out")
    asked = {"tables": tables or [], "rate": rate, "max_load": max_load, "anew": anew}
    if repair:
        asked["repair"] = True
    for member in chosen:
        _say(client.verify_member(name, member, asked)["done"])
        if detach:
            return
        _wait(client, name, member)
        if repair and client.verification(name, member)["different"]:
            _say(client.clone_member(name, member)["done"])
            _wait_cloned(client, name, member)
    _show(client, name, chosen, as_json)


def _chosen(client: ManagerClient, cluster: str, members: list[str]) -> list[str]:
    status = client.status(cluster)
    names = [each["name"] for each in status["members"]]
    for member in members:
        if member not in names:
            raise BadInput("member", f"there is no {member!r}: {cluster} has {', '.join(names)}")
    return members or [each for each in names if each != status["primary"]]


def _wait(client: ManagerClient, cluster: str, member: str) -> None:
    """Wait until the verification is over, however long it takes; it continues where no client waits.

    :raises Refused: it failed, and the manager tries it again
    """
    said = ""
    silent_since: float | None = None
    while True:
        try:
            findings = client.verification(cluster, member)
            if findings["ended"]:
                return
            if findings.get("failed"):
                raise Refused(
                    f"the verification of {member} failed: {findings['halted']}. It is tried again by itself; "
                    f"holdfast verify --stop {member} ends it"
                )
            found = _member(client, cluster, member)
            text = (
                found["progress"]["what"] if found["progress"] else "interrupted; it continues soon"
            )
            silent_since = None
        except Unreachable as error:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() > silent_since + SILENT_SECONDS:
                raise
            text = str(error)
        if text != said:
            said = text
            _say(f"{member}: {text}")
        time.sleep(POLL_SECONDS)


def _wait_cloned(client: ManagerClient, cluster: str, member: str) -> None:
    said = ""
    while True:
        found = _member(client, cluster, member)
        if not found["progress"] and not found["reason"] and found["role"] != "out":
            return
        text = found["progress"]["what"] if found["progress"] else found["reason"]
        if text != said:
            said = text
            _say(f"{member}: {text}")
        time.sleep(POLL_SECONDS)


def _member(client: ManagerClient, cluster: str, name: str) -> dict[str, Any]:
    for each in client.status(cluster)["members"]:
        if each["name"] == name:
            return dict(each)
    raise Refused(f"{name} is no longer a member")


def _show(client: ManagerClient, cluster: str, members: list[str], as_json: bool) -> None:
    found = {member: client.verification(cluster, member) for member in members}
    if as_json:
        print(json.dumps(found))
    else:
        rows = [
            [(member, ""), (table, ""), (str(each["rows"]), ""), _verdict(each)]
            for member, findings in found.items()
            for table, each in sorted(findings["results"].items())
        ]
        print_columns(("member", "table", "rows", "result"), rows)
        for member, findings in found.items():
            print(f"{member}: {_summary(findings)}")
    if any(each["different"] or each.get("failed") for each in found.values()):
        raise typer.Exit(DIFFERENT)


def _verdict(result: dict[str, Any]) -> tuple[str, str]:
    if result["skipped"]:
        return f"not compared: {result['skipped']}", "yellow"
    if result["different"]:
        return f"differs: {'; '.join(result['ranges'])}", "red"
    return "same", "green"


def _summary(findings: dict[str, Any]) -> str:
    if not findings["began"]:
        return "not verified since its data came, when it was made or cloned"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(findings["ended"] or findings["began"]))
    against = f"against {findings['primary']}"
    halted = findings.get("halted", "")
    if not findings["ended"]:
        how = "failed" if findings.get("failed") else "interrupted"
        return f"{f'{how} ({halted})' if halted else 'under way'} {against} since {when}"
    if findings.get("failed"):
        return f"failed ({halted}) {against}, {when}"
    differing = sum(1 for each in findings["results"].values() if each["different"])
    what = (
        ("1 table differs" if differing == 1 else f"{differing} tables differ")
        if differing
        else "no difference"
    )
    return f"{what}, {against}, {when}" + (f"; {halted} before it was over" if halted else "")


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
