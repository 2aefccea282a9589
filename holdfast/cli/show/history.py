"""``holdfast history``: the course of each failover, switchover and restart, what operators ordered, and what
verifications found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.columns import Cell, print_columns
from holdfast.cli.kit.connection import AsJson, ClusterName, Manager, TokenFile, connect
from holdfast.errors import Refused

if TYPE_CHECKING:
    from holdfast.http.manager_client import ManagerClient

STYLES = {"done": "green", "undone": "yellow", "replaced": "yellow", "under way": "bold"}

app = typer.Typer(help="Failovers, switchovers, restarts in place, orders and verifications.")


@dataclass(frozen=True, slots=True)
class _Asked:
    """Options that stand before ``show``."""

    manager: str | None
    cluster: str | None
    token_file: Path | None
    as_json: bool


@app.callback(invoke_without_command=True)
def history(
    context: typer.Context,
    most: Annotated[
        int, typer.Option("--most", "-n", min=1, max=200, help="How many, the newest first.")
    ] = 20,
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List failovers, switchovers, restarts in place, orders and verifications, the newest first.

    The outage is counted from when the manager noticed, or stopped the writes, until the new primary took writes.
    """
    if context.invoked_subcommand is not None:
        context.obj = _Asked(manager, cluster, token_file, as_json)
        return
    client, name = connect(manager, token_file, cluster)
    entries = client.history(name, most)
    if as_json:
        print(json.dumps({"entries": entries}))
    elif not entries:
        print(f"nothing has happened to {name} yet")
    else:
        head = ("number", "when", "kind", "primary", "outage", "outcome")
        print_columns(head, [_row(each) for each in entries], right=("number", "outage"))


@app.command("show")
def show(
    context: typer.Context,
    number: Annotated[int, typer.Argument(min=1, help="As in the list.")],
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one entry in full: cause, course, who was chosen and why, and what became of the old primary."""
    before: _Asked = context.obj
    client, name = connect(
        manager or before.manager, token_file or before.token_file, cluster or before.cluster
    )
    answer = client.history_entry(name, number)
    if as_json or before.as_json:
        print(json.dumps(answer))
        return
    for line in _told(client, name, number, answer):
        print(line)


def _told(client: ManagerClient, cluster: str, number: int, answer: dict[str, Any]) -> list[str]:
    from holdfast.cli.show.postmortem import told
    from holdfast.core.history.entry import from_json

    try:
        return told(from_json(json.dumps(answer)), cluster)
    except ValueError as error:
        raise Refused(
            f"entry {number}, as {client.url} tells it, {error}: see it with --json, or use the command line of the "
            "manager's version"
        ) from None


def _row(entry: dict[str, Any]) -> list[Cell]:
    from holdfast.cli.show.postmortem import moment, span

    number = (str(entry["number"]), "")
    if "unreadable" in entry:
        return [number, ("", ""), ("", ""), ("", ""), ("", ""), (str(entry["unreadable"]), "dim")]
    when = (moment(entry["begun"]), "")
    if entry["what"] in ("order", "alarm"):
        return [number, when, (entry["what"], ""), ("", ""), ("", ""), (entry["cause"], "")]
    if found := entry.get("verification"):
        kind = "verification" + (", ordered" if entry["ordered"] else "")
        style = "red" if found["different"] or found["failed"] else ""
        text = str(entry["cause"])
        if found["repeats"]:
            text += f"; so {found['repeats']} times before it, since {moment(found['since'])}"
        return [number, when, (kind, ""), (str(entry["old"]), ""), ("-", ""), (text, style)]
    change = f"{entry['old']} -> {entry['new']}" if entry["new"] else entry["old"]
    outage = "" if entry["outage_ms"] is None else span(entry["outage_ms"])
    outcome = str(entry["outcome"])
    text = f"{outcome}: {entry['why']}" if outcome in ("undone", "replaced") else outcome
    kind = str(entry["what"]) + (", ordered" if entry["ordered"] else "")
    return [
        number,
        when,
        (kind, ""),
        (change, ""),
        (outage or "-", ""),
        (text, STYLES.get(outcome, "")),
    ]
