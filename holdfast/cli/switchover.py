"""``holdfast switchover``: another primary, in place of one that is well."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.errors import DeadlinePassed, Refused, Unreachable

if TYPE_CHECKING:
    from holdfast.client import ManagerClient

POLL_SECONDS = 0.05
OPENING_SECONDS = 30.0
"""How long whoever was named may take to open."""


def switchover(
    to: Annotated[str, typer.Option("--to", help="Who takes over [default: the best]")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what stands against it, and touch nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for what passes by itself, up to --timeout.")
    ] = False,
    kill_long: Annotated[
        float | None,
        typer.Option(
            "--kill-long",
            metavar="SECONDS",
            help="Having waited for so long, end the connections whose transactions, statements or locks hold it up.",
        ),
    ] = None,
    old: Annotated[
        float,
        typer.Option(help="Seconds from which a transaction, statement or lock counts as long."),
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which it is undone, the waiting included.")
    ] = 30.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Have another member be primary in place of one that is well, and wait until it takes writes.

    Everything that stands against it is said before anything is touched. Until the new primary is named, it can be
    undone, and is when anything goes wrong or time is over; the primary then goes on.
    """
    client, name = connect(manager, token_file, cluster)
    if dry_run:
        _tell_outlook(client.switch_over(name, to, old=old, dry_run=True), as_json)
        return
    begun = client.switch_over(
        name,
        to,
        seconds=timeout,
        old=old,
        wait=wait or kill_long is not None,
        kill_after=kill_long,
    )
    answer = _opened(client, name, begun["to"], begun["event"], timeout + OPENING_SECONDS)
    done = f"{answer['primary']} is primary and takes writes (term {answer['term']})"
    print(json.dumps({"done": done, "primary": answer["primary"]}) if as_json else done)


def _tell_outlook(outlook: dict[str, Any], as_json: bool) -> None:
    """:raises Refused: with all that stands against it"""
    if as_json:
        print(json.dumps(outlook))
    if outlook["against"]:
        raise Refused("; ".join(outlook["against"]))
    if not as_json:
        print(f"{outlook['to']} would take over; nothing stands against it")


def _opened(
    client: ManagerClient, cluster: str, to: str, since: int, seconds: float
) -> dict[str, Any]:
    """The status once it takes writes; tells each decision meanwhile.

    :raises Refused: the switchover was undone; :raises DeadlinePassed: with the last reason that the manager gave
    """
    end = time.monotonic() + seconds
    undone = reason = ""
    while True:
        try:
            answer = client.status(cluster)
            for event in client.events(cluster, since, 0):  # after the status, which they explain
                since, text = event["id"], event["text"]
                if event["kind"] in ("decided", "failed"):
                    print(f"  {text}", file=sys.stderr, flush=True)
                    undone = text if "is undone" in text else undone
            reason = str(answer["reason"])
            if answer["primary"] == to and answer["writable"]:
                return answer
            if answer["under_way"] != "switchover" and answer["primary"] != to:
                raise Refused(undone or f"the switchover did not come about: {reason}")
        except Unreachable as error:  # another manager may take over meanwhile
            reason = str(error)
        if time.monotonic() > end:
            raise DeadlinePassed(f"waiting until {to} takes writes: {reason}", seconds)
        time.sleep(POLL_SECONDS)
