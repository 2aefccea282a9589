"""``holdfast adopt``: take over a replication cluster that runs already."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.cli.kit.durations import METAVAR, duration
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

POLL_SECONDS = 0.2


def adopt(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    member: Annotated[
        list[str] | None,
        typer.Option(
            "--member",
            metavar="NAME=AGENT_URL",
            help="NAME=URL of a member's agent; may be repeated. Refused if the manager's file has other members.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=duration,
            metavar=METAVAR,
            help="How long to wait until the cluster is whole.",
        ),
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Take over a running cluster, with its data and clients; writes continue meanwhile.

    Exits with 0 when every member votes (or waits for a seat), with 1 if it is refused, with 3 when that is not known.
    """
    members = dict(_member(each) for each in member or ())
    client, name = connect(manager, token_file, cluster)
    with contextlib.closing(client):
        _adopt(client, name, members, dry_run, yes, timeout, as_json)


def _adopt(
    client: ManagerClient,
    name: str,
    members: dict[str, str],
    dry_run: bool,
    yes: bool,
    timeout: float,
    as_json: bool,
) -> None:
    asked = client.adopt(name, members)
    if asked["against"]:
        _refuse(asked, as_json)
    if dry_run:
        print(json.dumps(asked) if as_json else _described(asked))
        return
    if not as_json:
        print(_described(asked))
    if not yes:
        _confirm(name)
    reply = client.adopt(name, members, asked["plan"]["primary"], dry_run=False)
    status = _until_whole(client, name, timeout, as_json)
    if as_json:
        print(json.dumps({**reply, "status": status}))


def _member(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not (name and equals and url.startswith(("http://", "https://"))):
        raise BadInput("--member", f"{text!r} must be NAME=URL of its agent")
    return name, url.rstrip("/")


def _refuse(asked: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(asked))
        raise typer.Exit(1)
    reasons = "\n".join(f"  {reason}" for reason in asked["against"])
    raise Refused(f"{asked['cluster']} cannot be adopted as it is:\n{reasons}")


def _described(asked: dict[str, Any]) -> str:
    """The plan, as text for operators."""
    plan = asked["plan"]
    primary = plan["primary"]
    lines = [
        f"{asked['cluster']}: {primary} is primary and stays it; clients go on writing",
        f"  accounts   {', '.join(plan['accounts'])}: made on {primary}, or given the agents' passwords",
    ]
    if plan["equipped"]:
        lines.append(f"  semi-sync  loaded on {', '.join(plan['equipped'])}")
    if plan["repointed"]:
        lines.append(
            f"  repointed  {', '.join(plan['repointed'])}: each follows by its own account"
        )
    if plan["replicas"]:
        lines.append(f"  voters     {', '.join(plan['replicas'])}, as soon as they have caught up")
    return "\n".join(lines)


def _confirm(name: str) -> None:
    if not sys.stdin.isatty():
        raise BadInput("--yes", "is needed where nobody can be asked; nothing was done")
    if not typer.confirm(f"Adopt {name}?"):
        raise Refused("nothing was done")


def _until_whole(client: ManagerClient, name: str, seconds: float, quiet: bool) -> dict[str, Any]:
    """Print each new state of the cluster, once.

    :raises DeadlinePassed: it is managed, and not whole yet
    """
    end = time.monotonic() + seconds
    told = ""
    while True:
        try:
            status = client.status(name)
            reason = str(status["reason"])
            if reason != told and not quiet:
                print(reason)
                told = reason
            if status["whole"]:
                return status
        except HoldfastError:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise DeadlinePassed(
                f"{name} is adopted, and not whole yet ({told or 'see holdfast status'})", seconds
            )
        time.sleep(POLL_SECONDS)
