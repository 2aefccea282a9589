"""``holdfast switchover``: another primary, in place of one that is well."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.cli.opening import until_open
from holdfast.errors import BadInput, Refused

if TYPE_CHECKING:
    from holdfast.client import ManagerClient

OPENING_SECONDS = 30.0
"""How long whoever was named may take to open."""


def switchover(
    to: Annotated[str, typer.Option("--to", help="Who takes over [default: the best]")] = "",
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TIME",
            help="Begin later: HH:MM (local), 2026-12-24T03:00 (with +00:00 or Z for another zone), or +90m.",
        ),
    ] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="Do not begin what is planned.")] = False,
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
    if cancel:
        done = client.cancel_switchover(name)["done"]
        print(json.dumps({"done": done}) if as_json else done)
        return
    order = {"old": old, "wait": wait or kill_long is not None, "kill_after": kill_long}
    if at:
        when = moment(at)
        client.switch_over(name, to, seconds=timeout, at=when.timestamp(), **order)
        done = f"the switchover is planned for {when.strftime('%Y-%m-%d %H:%M:%S %Z')}; --cancel takes it back"
        print(json.dumps({"done": done, "at": when.isoformat()}) if as_json else done)
        return
    begun = client.switch_over(name, to, seconds=timeout, **order)
    answer = _opened(client, name, begun["to"], begun["event"], timeout + OPENING_SECONDS)
    done = f"{answer['primary']} is primary and takes writes (term {answer['term']})"
    print(json.dumps({"done": done, "primary": answer["primary"]}) if as_json else done)


def moment(text: str) -> datetime:
    """What a person means by ``--at``, with its zone; a time of day is the next such.

    :raises BadInput: it is not understood
    """
    from holdfast.config.values import seconds

    now = datetime.now().astimezone()
    try:
        if text.startswith("+"):
            return now + timedelta(seconds=seconds(text[1:]))
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
            hour, minute, second = (*(int(each) for each in text.split(":")), 0)[:3]
            found = now.replace(microsecond=0, second=second, minute=minute, hour=hour)
            return found if found > now else found + timedelta(days=1)
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise BadInput("--at", f"{text!r} is no time ({error}); such as 03:00 or +90m") from None


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
    undone = ""

    def is_open(answer: dict[str, Any]) -> bool:
        nonlocal since, undone
        for event in client.events(cluster, since, 0):  # after the status, which they explain
            since, text = event["id"], event["text"]
            if event["kind"] in ("decided", "failed"):
                print(f"  {text}", file=sys.stderr, flush=True)
                undone = text if "is undone" in text else undone
        if answer["under_way"] != "switchover" and answer["primary"] != to:
            raise Refused(undone or f"the switchover did not come about: {answer['reason']}")
        return bool(answer["primary"] == to and answer["writable"])

    return until_open(client, cluster, is_open, seconds, f"until {to} takes writes")
