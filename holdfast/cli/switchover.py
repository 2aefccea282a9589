"""``holdfast switchover``: another primary, in place of one that is well."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect, naming
from holdfast.cli.kit.durations import METAVAR, duration, some_time
from holdfast.cli.kit.opening import until_open
from holdfast.errors import BadInput, HoldfastError, Refused

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

OPENING_SECONDS = 30.0
"""How long the member that was named may take to open."""
LOOK_SECONDS = 0.3
OPTIONS = {"seconds": "--timeout", "old": "--old", "kill_after": "--kill-long", "at": "--at"}
"""By the manager's names for them."""


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
    cancel: Annotated[
        bool,
        typer.Option(
            "--cancel",
            help="Call off the one that waits, else undo the one that is under way, else drop the planned one.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what stands against it, and touch nothing.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until no transaction or lock is in the way and the candidate has caught up, up to --timeout.",
        ),
    ] = False,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Return at once; with --wait it stays ordered. Else the order ends with this command, unless it has "
            "begun.",
        ),
    ] = False,
    kill_long: Annotated[
        float | None,
        typer.Option(
            "--kill-long",
            parser=duration,
            metavar=METAVAR,
            help="Having waited for so long, end the connections whose transactions, statements or locks hold it up. "
            "Implies --wait.",
        ),
    ] = None,
    old: Annotated[
        float,
        typer.Option(
            "--old",
            parser=some_time,
            metavar=METAVAR,
            help="From what age a transaction, statement or lock counts as long.",
        ),
    ] = 2.0,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=some_time,
            metavar=METAVAR,
            help="After which it is undone, the waiting included.",
        ),
    ] = 30.0,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make another member primary in place of one that is well, and wait until it takes writes.

    All obstacles are reported before anything is touched. Until the new primary is named the switchover can be undone,
    and it is undone when a step fails or the time is over; the primary then continues. If this command is interrupted
    before the switchover has begun, or loses its manager, it leaves no order behind, unless with --detach.
    """
    client, name = connect(manager, token_file, cluster)
    with naming(OPTIONS):
        if dry_run:
            _tell_outlook(client.switch_over(name, to, old=old, dry_run=True), as_json)
            return
        if cancel:
            done = client.cancel_switchover(name)["done"]
            print(json.dumps({"done": done}) if as_json else done)
            return
        order = {"old": old, "wait": wait or kill_long is not None, "kill_after": kill_long}
        _order(_Wanted(client, name, to, timeout, order), at, detach, as_json)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A switchover of the cluster ``name``; ``timeout`` in seconds; ``order`` as the manager's API takes it."""

    client: ManagerClient
    name: str
    to: str
    timeout: float
    order: dict[str, Any]


def _order(wanted: _Wanted, at: str, detach: bool, as_json: bool) -> None:
    client, name, to = wanted.client, wanted.name, wanted.to
    timeout, order = wanted.timeout, wanted.order
    if at:
        when = moment(at)
        client.switch_over(name, to, seconds=timeout, at=when.timestamp(), **order)
        done = f"the switchover is planned for {when.strftime('%Y-%m-%d %H:%M:%S %Z')}; --cancel takes it back"
        print(json.dumps({"done": done, "at": when.isoformat()}) if as_json else done)
        return
    if detach:
        done = client.switch_over(name, to, seconds=timeout, detach=True, **order)["done"]
        print(json.dumps({"done": done}) if as_json else done)
        return
    begun = _begun(client, name, to, timeout, order)
    try:
        answer = _opened(client, name, begun["to"], begun["event"], timeout + OPENING_SECONDS)
    except KeyboardInterrupt:
        print(
            f"holdfast: the switchover to {begun['to']} has begun and continues: holdfast switchover --cancel undoes "
            "it while that can be done",
            file=sys.stderr,
        )
        raise
    done = f"{answer['primary']} is primary and takes writes (term {answer['term']})"
    print(json.dumps({"done": done, "primary": answer["primary"]}) if as_json else done)


def _begun(
    client: ManagerClient, name: str, to: str, seconds: float, order: dict[str, Any]
) -> dict[str, Any]:
    """The answer once the switchover has begun; prints meanwhile what it waits for. An interrupt cancels it."""
    answers: Queue[dict[str, Any] | HoldfastError] = Queue()

    def ask() -> None:
        try:
            answers.put(client.switch_over(name, to, seconds=seconds, **order))
        except HoldfastError as error:
            answers.put(error)

    # a daemon thread: when the interpreter ends, the connection breaks, which cancels the order as well
    Thread(target=ask, daemon=True).start()
    known = ""
    try:
        while True:
            try:
                answer = answers.get(timeout=LOOK_SECONDS)
            except Empty:
                known = _tell_waiting(client, name, known)
                continue
            if isinstance(answer, HoldfastError):
                raise answer
            return answer
    except KeyboardInterrupt:
        print(f"holdfast: {_called_off(client, name)}", file=sys.stderr)
        raise


def _tell_waiting(client: ManagerClient, name: str, known: str) -> str:
    """Print what the order waits for, if that has changed; returns the key of the last printed text."""
    try:
        answer = client.status(name)
    except HoldfastError:
        return known
    text = str(answer.get("waiting", ""))
    key = str(answer.get("waiting_key", text))
    if not text or key == known:
        return known
    print(f"  {text}", file=sys.stderr, flush=True)
    return key


def _called_off(client: ManagerClient, name: str) -> str:
    try:
        return str(client.cancel_switchover(name, waiting=True)["done"])
    except Refused:
        return "no switchover waits any more: see holdfast status whether it had begun"
    except HoldfastError as error:
        return f"whether it was called off is not known ({error}): see holdfast status"


def moment(text: str) -> datetime:
    """The time that ``--at`` names, with its zone; a time of day is the next such.

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
    except ValueError:
        raise BadInput(
            "--at", f"{text!r} is no time: write it like 03:00, +90m or 2026-01-31T03:00"
        ) from None


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
    """The status once the new primary takes writes; prints each decision meanwhile.

    :raises Refused: the switchover was undone; :raises DeadlinePassed: with the last reason that the manager gave
    """
    undone = ""

    def is_open(answer: dict[str, Any]) -> bool:
        nonlocal since, undone
        for event in client.events(cluster, since, 0):  # after the status, which they explain
            since, text, change = event["id"], event["text"], event.get("change") or {}
            if event["kind"] in ("decided", "failed"):
                print(f"  {text}", file=sys.stderr, flush=True)
            if change.get("ended") == "switchover" and change["outcome"] == "undone":
                undone = text
        if answer["under_way"] != "switchover" and answer["primary"] != to:
            raise Refused(undone or f"the switchover did not come about: {answer['reason']}")
        return bool(answer["primary"] == to and answer["writable"])

    return until_open(client, cluster, is_open, seconds, f"until {to} takes writes")
