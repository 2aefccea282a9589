"""``holdfast store``: what the managers' store holds of a cluster."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from holdfast.cli.kit.connection import AsJson, Manager, TokenFile, connect

app = typer.Typer(
    help="The managers' store: repair it when it was lost, or restored from a backup.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def store() -> None:
    """A callback: without it typer would make the only command the group itself."""


@app.command()
def repair(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="The cluster's name.")],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what would be stored, and what is not known."),
    ] = False,
    accept_loss: Annotated[
        str,
        typer.Option(
            "--accept-loss",
            metavar="CLUSTER",
            help="Even if members are missing that may remember a later record: what was acknowledged under that one "
            "may be lost, and a primary that it names may still take writes. Takes the cluster's name, to be sure.",
        ),
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="MEMBER",
            help="The member whose memory is used [default: the one with the newest record]",
        ),
    ] = "",
    manager: Manager = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild the record of a cluster from what its agents remember of it.

    Refused unless all members answer, which proves that this is the last record that had an effect.
    """
    client, name = connect(manager, token_file, cluster)
    answer = client.repair_store(name, dry_run, accept_loss, source)
    if as_json:
        print(json.dumps(answer))
        return
    if answer.get("needless"):
        print(answer["needless"])
        return
    by = f"what {answer['source']} remembers" if answer["source"] else "what the store holds"
    verb = "is rebuilt" if answer["done"] else "would be rebuilt"
    print(f"{name} {verb} from {by}: {answer['primary']} is primary, term {answer['term']}")
    for doubt in answer["doubts"]:
        print(f"not known: {doubt}", file=sys.stderr)
