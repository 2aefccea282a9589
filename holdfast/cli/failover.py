"""``holdfast failover | pause | resume``: what people decide when the manager does not, or must not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.cli.opening import until_open
from holdfast.errors import Refused

if TYPE_CHECKING:
    from holdfast.client import ManagerClient

WAIT_SECONDS = 60.0


def failover(
    to: Annotated[str, typer.Option("--to", help="Who takes over, if possible.")] = "",
    accept_loss: Annotated[
        str,
        typer.Option(
            "--accept-loss",
            metavar="CLUSTER",
            help="Also where acknowledged writes may be lost, or the old primary, which cannot be reached, may still "
            "answer its clients. A primary that came back, and waits for voters that are gone for good, is opened with "
            "what it has. Takes the cluster's name, to be sure.",
        ),
    ] = "",
    skip_stop_hook: Annotated[
        bool,
        typer.Option(
            "--skip-stop-hook",
            help="Go on without it where it fails: clients may be left with the old primary's address. Without this, "
            "a failover that the hook holds up has it called once more.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the new primary.")] = (
        WAIT_SECONDS
    ),
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Have another primary take over from one that is lost, and wait until it takes writes.

    For a primary that is well this is refused. Also while the cluster is paused.
    """
    client, name = connect(manager, token_file, cluster)
    before = client.status(name)
    client.fail_over(name, to, accept_loss, skip_stop_hook)
    answer = _opened(client, name, before, timeout)
    done = f"{answer['primary']} is primary and takes writes (term {answer['term']})"
    print(json.dumps({"done": done, "primary": answer["primary"]}) if as_json else done)


def pause(
    reason: Annotated[str, typer.Option("--reason", help="For whoever looks at the status.")],
    lasting: Annotated[
        str, typer.Option("--for", help="It ends by itself after so long, such as 30m or 2h.")
    ] = "",
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Begin nothing by itself any more: no failover, no change of voters, no repair.

    What is under way is finished. The primary keeps its lease, and ends itself if it loses everybody.
    """
    from holdfast.config.values import seconds

    try:
        how_long = seconds(lasting) if lasting else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    client, name = connect(manager, token_file, cluster)
    _said(client.pause(name, reason, how_long)["done"], as_json)


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
    """The status once another one takes writes.

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
