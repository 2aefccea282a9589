"""``holdfast failover | pause | resume``: what operators decide when the manager does not, or must not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect, naming
from holdfast.cli.kit.durations import METAVAR, duration, moment, some_time
from holdfast.cli.kit.opening import until_open
from holdfast.errors import Refused

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

WAIT_SECONDS = 60.0


def failover(
    to: Annotated[str, typer.Option("--to", help="The member that takes over, if possible.")] = "",
    accept_loss: Annotated[
        str,
        typer.Option(
            "--accept-loss",
            metavar="CLUSTER",
            help="Even if acknowledged writes may be lost, or an old primary that cannot be reached may still answer "
            "its clients. A primary that came back, but waits for voters that will never return, is opened with what "
            "it has. Takes the cluster's name, to be sure.",
        ),
    ] = "",
    skip_stop_hook: Annotated[
        bool,
        typer.Option(
            "--skip-stop-hook",
            help="Continue without the stop hook if it fails: clients may keep the old primary's address. Without "
            "this option, a failover that waits for the hook calls it once more.",
        ),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=duration,
            metavar=METAVAR,
            help="How long to wait for the new primary.",
        ),
    ] = WAIT_SECONDS,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Promote another member in place of a lost primary, and wait until it takes writes.

    Refused while the primary is healthy. Works while the cluster is paused, too.
    """
    client, name = connect(manager, token_file, cluster)
    before = client.status(name)
    with naming({"accept_loss": "--accept-loss"}):
        client.fail_over(name, to, accept_loss, skip_stop_hook)
    try:
        answer = _opened(client, name, before, timeout)
    except KeyboardInterrupt:
        print(
            "holdfast: the failover has begun and continues: see holdfast status", file=sys.stderr
        )
        raise
    if to and answer["primary"] != to:
        raise Refused(
            f"{answer['primary']} is primary and takes writes, not {to}, which could not take over: see holdfast "
            "history show"
        )
    done = f"{answer['primary']} is primary and takes writes (term {answer['term']})"
    print(json.dumps({"done": done, "primary": answer["primary"]}) if as_json else done)


def pause(
    reason: Annotated[str, typer.Option("--reason", help="Shown in the status.")],
    lasting: Annotated[
        float | None,
        typer.Option(
            "--for",
            parser=some_time,
            metavar=METAVAR,
            help="End the pause by itself after this time, such as 30m or 2h.",
        ),
    ] = None,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Stop automatic action: no failover, no change of voters, no repair.

    What is under way is finished. The primary keeps its lease, and ends itself if it loses all other members.
    """
    client, name = connect(manager, token_file, cluster)
    with naming({"seconds": "--for", "reason": "--reason"}):
        answer = client.pause(name, reason, lasting)
    if as_json:
        print(json.dumps(answer))
        return
    until = f"until {moment(answer['until'])}" if answer["until"] else "until it is resumed"
    print(f"paused {until}: {reason}")
    if before := answer["replaces"]:
        ended = f"until {moment(before['until'])}" if before["until"] else "until it was resumed"
        print(f"note: it replaces the pause {ended} ({before['reason']})", file=sys.stderr)


def resume(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """End a pause."""
    client, name = connect(manager, token_file, cluster)
    _said(client.resume(name)["done"], as_json)


def _opened(
    client: ManagerClient, cluster: str, before: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """The status once another member takes writes.

    :raises Refused: the failover was given up; :raises DeadlinePassed: with the last reason that the manager gave
    """
    said = ""
    in_place = before["under_way"] == "restart"

    def is_open(answer: dict[str, Any]) -> bool:
        if answer["writable"] and (in_place or answer["primary"] != before["primary"]):
            return True
        if answer["under_way"] == "restart" and not in_place:
            raise Refused(f"the failover was given up: {answer['reason']}")
        return False

    def tell(reason: str) -> None:
        nonlocal said
        if reason != said:
            print(f"  {reason}", file=sys.stderr, flush=True)
            said = reason

    return until_open(client, cluster, is_open, seconds, "for a new primary", tell)


def _said(what: str, as_json: bool) -> None:
    print(json.dumps({"done": what}) if as_json else what)
