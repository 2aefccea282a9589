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
    help="The members of a cluster: who they are, adding, removing, cloning, restarting.",
    no_args_is_help=True,
    add_completion=False,
)

POLL_SECONDS = 0.25

Name = Annotated[str, typer.Argument(metavar="MEMBER")]
Yes = Annotated[bool, typer.Option("--yes", help="Also where writes have to wait meanwhile.")]


@app.command("list")
def list_members(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who is a member, and where."""
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
    agent: Annotated[str, typer.Option("--agent", help="URL of its agent.")],
    host: Annotated[
        str, typer.Option("--host", help="Where its server takes connections [default: asked]")
    ] = "",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="[default: asked]")] = 0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make it a member. The cluster brings it up to date, and lets it vote, by itself."""
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
            help="Its host will never answer again. If it does after all, as it was: what its server acknowledges in "
            "the moment until it is ended may be lost with the primary. Refused while anything shows that it lives.",
        ),
    ] = False,
    timeout: Timeout = 60.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Take it out, once it votes no longer. Interrupted, it can be asked again. Its data is left as it is."""
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
    _done(as_json, f"{member} is no member any more", answer.get("notes", []))


@app.command()
def clone(
    member: Name,
    donor: Annotated[str, typer.Option("--from", help="[default: the best one]")] = "",
    discard: Annotated[
        bool, typer.Option("--discard", help="What only this member has is lost for good.")
    ] = False,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace its data by a copy of another's. Returns when that has begun; status shows how it goes on."""
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
    """Take the agent that answers for it now for its own, where status says that it is another one than before."""
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
    """Restart its server, and wait until it is back in its place."""
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
    """Restart every server, one after another, the primary last; each time the cluster is whole again first.

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
        # a voter may be a learner now: another one had its seat meanwhile
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
        except Unreachable as error:  # it may be restarted while we wait
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
