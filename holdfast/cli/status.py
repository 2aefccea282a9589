"""``holdfast status``: a cluster as its manager sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.errors import BadInput

if TYPE_CHECKING:
    from holdfast.client import ManagerClient

NOT_WRITABLE = 4
URL_VARIABLE = "HOLDFAST_MANAGER"
TOKEN_VARIABLE = "HOLDFAST_TOKEN_FILE"
STYLES = {"primary": "bold green", "voter": "green", "learner": "yellow", "out": "red"}

Manager = Annotated[
    str | None,
    typer.Option("--manager", help=f"URL [default: ${URL_VARIABLE}, else the default sandbox's]"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"Holds the bearer token [default: ${TOKEN_VARIABLE}]"),
]
ClusterName = Annotated[
    str | None, typer.Option("--cluster", help="Needed where the manager has several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


def status(
    manager: Manager = None,
    cluster: ClusterName = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a cluster: who is primary, who acknowledges, and why anything is not well.

    Exits with 0 if the cluster takes writes, with 4 if not.
    """
    client = _client(manager, token_file)
    show(client.status(cluster or _only_cluster(client)), as_json)


def show(answer: dict[str, Any], as_json: bool) -> None:
    """Print a status, and end with an exit code that says whether the cluster takes writes."""
    if as_json:
        print(json.dumps(answer))
    else:
        _print(answer)
    if not answer["writable"]:
        raise typer.Exit(NOT_WRITABLE)


def short_gtids(text: str, width: int = 40) -> str:
    """A GTID set for people: of a UUID its ends, of many streams as many as fit."""
    from holdfast.core.gtid import Flavor, parse

    flavor = Flavor.MYSQL if ":" in text else Flavor.MARIADB
    streams = []
    for stream in str(parse(flavor, text)).split(","):
        uuid, colon, intervals = stream.strip().partition(":")
        # the first digits of two servers that were started together are the same
        streams.append(f"{uuid[:4]}…{uuid[-4:]}:{intervals}" if colon else uuid)
    shown = ", ".join(streams)
    if len(shown) <= width:
        return shown
    kept = 1
    while kept < len(streams) and len(", ".join(streams[: kept + 1])) <= width - 6:
        kept += 1
    left = len(streams) - kept
    first = ", ".join(streams[:kept])
    return f"{first} +{left}" if left else first[: width - 1] + "…"


def _client(url: str | None, token_file: Path | None) -> ManagerClient:
    from holdfast.client import ManagerClient
    from holdfast.config.load import secret

    url = url or os.environ.get(URL_VARIABLE)
    token_path = token_file or os.environ.get(TOKEN_VARIABLE)
    if not url:
        from holdfast.sandbox.spec import default_dir, read_saved, saved_path

        if not saved_path(default_dir()).exists():
            raise BadInput(
                "--manager",
                f"not given, {URL_VARIABLE} is not set, and there is no sandbox in {default_dir()}",
            )
        spec = read_saved(default_dir())[0]
        url = spec.manager_url
        token_path = token_path or (spec.token_file if spec.token_file.exists() else None)
    token = secret(Path(token_path), "--token-file") if token_path else None
    return ManagerClient(url, token)


def _only_cluster(client: ManagerClient) -> str:
    names = client.clusters()
    if len(names) != 1:
        raise BadInput("--cluster", f"is needed: the manager has {', '.join(names) or 'none'}")
    return names[0]


def _print(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    acks = answer["acks"]
    head = f"{answer['cluster']}: term {answer['term']}, {answer['mode']}, {acks} ack"
    console.print(Text(head + ("" if acks == 1 else "s"), style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("member", "address", "role", "state", "received"):
        table.add_column(heading, no_wrap=True)
    table.add_column("lag", justify="right")
    for member in answer["members"]:
        lag = member["lag_seconds"]
        table.add_row(
            Text(member["name"]),
            Text(f"{member['host']}:{member['port']}"),
            Text(member["role"], style=STYLES.get(member["role"], "")),
            Text(member["state"]),
            Text(short_gtids(member["received"])),
            Text("-" if lag is None else f"{lag:g} s"),
        )
    console.print(table)
    _print_reasons(console, answer)


def _print_reasons(console: Any, answer: dict[str, Any]) -> None:
    from rich.text import Text

    if answer.get("whole") and answer["writable"]:
        return
    takes = "takes writes" if answer["writable"] else "does not take writes"
    console.print(Text(f"{takes}; {answer['reason']}", style="" if answer["writable"] else "red"))
    for member in answer["members"]:
        if member["reason"]:
            console.print(Text(f"{member['name']}: {member['reason']}"))
