"""``holdfast member`` and ``holdfast restart``: members of a cluster, and work on them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.columns import print_columns
from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.cli.kit.durations import METAVAR, Timeout, duration
from holdfast.errors import BadInput, DeadlinePassed, Refused, Unreachable

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

app = typer.Typer(
    help="The members of a cluster: list, add, remove, clone, restart.",
    no_args_is_help=True,
    add_completion=False,
)

POLL_SECONDS = 0.25

Name = Annotated[str, typer.Argument(metavar="MEMBER", help="The member's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Even if writes must wait meanwhile.")]


@app.command("list")
def list_members(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the members and their addresses."""
    client, name = connect(manager, token_file, cluster)
    members = client.members(name)
    if as_json:
        print(json.dumps(members))
        return
    rows = [
        [(each["name"], ""), (f"{each['host']}:{each['port']}", ""), (each["agent"], "")]
        for each in members
    ]
    print_columns((), rows)


@app.command()
def add(
    member: Name,
    agent: Annotated[str, typer.Option("--agent", help="URL of the member's agent.")],
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address of its server for clients [default: the agent is asked]"
        ),
    ] = "",
    port: Annotated[
        int,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port of its server for clients [default: the agent is asked]",
            show_default=False,
        ),
    ] = 0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Add a member. Holdfast copies the data to it and makes it a voter by itself."""
    client, name = connect(manager, token_file, cluster)
    added = client.add_member(name, member, agent, host, port)
    if as_json:
        print(json.dumps(added))
    else:
        print(f"{member} ({added['host']}:{added['port']}) is a member from now on")


@app.command()
def remove(
    member: Name,
    destroyed: Annotated[
        bool,
        typer.Option(
            "--destroyed",
            help="Its host is gone for ever. Should it return unchanged, what its server acknowledges in the moment "
            "before it is ended may be lost with the primary. Refused while anything shows that it is alive.",
        ),
    ] = False,
    timeout: Timeout = 60.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove a member, once it no longer votes; its data stays. If interrupted, run it again."""
    client, name = connect(manager, token_file, cluster)
    end = time.monotonic() + timeout
    said = ""
    while not (answer := client.remove_member(name, member, destroyed))["removed"]:
        if answer["waiting"] != said:
            said = answer["waiting"]
            _progress(f"{member}: {said}")
        if time.monotonic() > end:
            back = f"or holdfast config unset members.{member}.voter to keep it"
            raise DeadlinePassed(f"removing {member}: {said}; ask again to go on, {back}", timeout)
        time.sleep(POLL_SECONDS)
    _done(as_json, f"{member} is no longer a member", answer.get("notes", []))


@app.command()
def clone(
    member: Name,
    donor: Annotated[
        str, typer.Option("--from", help="The member that is copied [default: the best one]")
    ] = "",
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Do not save what only this member has: it is lost for good."
        ),
    ] = False,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace a member's data by a copy of another's. Returns when that has begun; status shows the progress."""
    client, name = connect(manager, token_file, cluster)
    _done(as_json, client.clone_member(name, member, donor, discard)["done"])


@app.command()
def confirm(
    member: Name,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Accept the agent that answers for a member now, where status says that it is not the one known before."""
    client, name = connect(manager, token_file, cluster)
    _done(as_json, client.confirm_member(name, member)["done"])


@app.command()
def restart(
    member: Name,
    yes: Yes = False,
    timeout: Timeout = 180.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Restart a member's server, and wait until it is back in its role."""
    client, name = connect(manager, token_file, cluster)
    _restart(client, name, member, yes, timeout)
    _done(as_json, f"{member} was restarted, and is back in its place")


def restart_all(
    everything: Annotated[bool, typer.Option("--all", help="Every member's server.")] = False,
    yes: Yes = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=duration,
            metavar=METAVAR,
            help="How long to wait at most, for each.",
        ),
    ] = 180.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Restart every server, one after another, the primary last; each only when all members are back.

    Stops at the first that fails. One member alone: holdfast member restart.
    """
    if not everything:
        raise BadInput(
            "--all", "is needed: one member alone is restarted by holdfast member restart"
        )
    client, name = connect(manager, token_file, cluster)
    status = client.status(name)
    if not status["whole"]:
        raise Refused(f"nothing was restarted: {status['reason']}")
    if not yes:
        raise Refused(
            f"nothing was restarted: no writes are taken while {status['primary']}, the primary, "
            "restarts: add --yes"
        )
    names = [each["name"] for each in status["members"]]
    for member in sorted(names, key=lambda each: each == status["primary"]):
        _progress(f"restarting {member}")
        _restart(client, name, member, yes, timeout)
        _wait(client, name, lambda answer: bool(answer["whole"]), timeout, f"after {member}")
    _done(as_json, f"all {len(names)} members were restarted")


def _restart(client: ManagerClient, cluster: str, name: str, yes: bool, timeout: float) -> None:
    before = _member(client.status(cluster), name)
    client.restart_member(cluster, name, yes)

    def back(answer: dict[str, Any]) -> bool:
        now = _member(answer, name)
        if answer["primary"] != name and before["role"] == "primary":
            raise Refused(
                f"{name} was the primary, and {answer['primary']} has taken over: {answer['reason']}"
            )
        # a voter may be a learner now: another member got its seat meanwhile
        in_place = now["role"] != "out" and not now["reason"]
        new = now["incarnation"] not in ("", before["incarnation"])
        return bool(new and in_place and answer["writable"])

    _wait(client, cluster, back, timeout, f"{name} to be back")


def _wait(
    client: ManagerClient,
    cluster: str,
    reached: Callable[[dict[str, Any]], bool],
    seconds: float,
    what: str,
) -> None:
    """:raises DeadlinePassed: with the last reason that the manager gave"""
    end = time.monotonic() + seconds
    reason, said = "the manager does not answer", ""
    while True:
        try:
            answer = client.status(cluster)
            if reached(answer):
                return
            reason = str(answer["reason"])
        except Unreachable as error:  # the manager may be restarted while this command waits
            reason = str(error)
        if reason != said:
            said = reason
            _progress(reason)
        if time.monotonic() > end:
            raise DeadlinePassed(f"waiting for {what}: {reason}", seconds)
        time.sleep(POLL_SECONDS)


def _member(answer: dict[str, Any], name: str) -> dict[str, Any]:
    for each in answer["members"]:
        if each["name"] == name:
            return dict(each)
    names = ", ".join(each["name"] for each in answer["members"])
    raise BadInput("member", f"there is no {name!r}: the cluster has {names}")


def _progress(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _done(as_json: bool, what: str, notes: list[str] | None = None) -> None:
    if as_json:
        print(json.dumps({"done": what, "notes": notes or []}))
        return
    print(what)
    for note in notes or []:
        print(f"note: {note}", file=sys.stderr)
