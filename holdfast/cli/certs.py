"""``holdfast certs``: certificates for agents, managers and operators, where there is no other PKI."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.connection import AsJson
from holdfast.errors import BadInput

if TYPE_CHECKING:
    from holdfast.core.answers.access import AccessRole
    from holdfast.tls.authority import CertificateFacts

app = typer.Typer(
    help="Make certificates for agents, managers and operators.", no_args_is_help=True
)

SOON_DAYS = 30

Folder = Annotated[
    Path, typer.Option("--dir", help="Folder of the certificates and of the CA's key.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
DEFAULT = Path("holdfast-certs")


@app.command()
def init(
    folder: Folder = DEFAULT,
    cluster: Annotated[
        str,
        typer.Option(
            "--cluster",
            help="The only cluster that its certificates are for [default: every cluster]",
        ),
    ] = "",
    force: Force = False,
) -> None:
    """Make a CA: ca.pem, which every host gets, and ca.key, which none does."""
    from holdfast.tls.authority import ca_key, make_ca

    made = make_ca(folder, cluster, force)
    print(f"{made.name}, until {made.ends:%Y-%m-%d}: {made.path}")
    print(f"keep {ca_key(folder)} secret: anyone who has it can command every agent")


@app.command()
def issue(
    name: Annotated[
        str, typer.Argument(help="Name of the agent, manager or operator, as logs show it.")
    ],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address at which it is reached; may be repeated."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            help="Role of its owner: agent, manager, viewer, operator, admin; server for a database server or etcd, "
            "which has no right here. May be repeated.",
        ),
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster",
            help="Cluster that it is for; may be repeated, * is every cluster [default: the CA's]",
        ),
    ] = None,
    folder: Folder = DEFAULT,
    days: Annotated[int, typer.Option("--days", help="How many days it is valid.")] = 825,
    force: Force = False,
) -> None:
    """Make a certificate, good as a server's and as a client's: NAME.pem and NAME.key."""
    from holdfast.tls.authority import issue as make

    made = make(folder, name, host or (), days, force, _roles(role), cluster or ())
    print(f"{made.path} and {made.path.with_suffix('.key')}, until {made.ends:%Y-%m-%d}")
    print(f"{_rights(made)}; good for {', '.join(made.hosts)}")


@app.command()
def show(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="PEM files [default: all of --dir]")
    ] = None,
    folder: Folder = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Say whose each certificate is, for which hosts, and until when. Exits with 1 if one has expired."""
    from holdfast.tls.authority import describe

    found = [describe(path) for path in paths or sorted(folder.glob("*.pem"))]
    if not found:
        raise BadInput("--dir", f"there are no certificates in {folder}")
    if as_json:
        print(json.dumps([_as_json(each) for each in found]))
    else:
        for each in found:
            print(f"{each.path}: {each.name}{' (CA)' if each.authority else ''}")
            print(f"    {_lasting(each)}; signed by {each.issuer}")
            if not each.authority:
                print(f"    {_rights(each)}")
            if each.hosts:
                print(f"    for {', '.join(each.hosts)}")
    if any(each.days_left < 0 for each in found):
        raise typer.Exit(1)


def _roles(given: list[str] | None) -> list[AccessRole]:
    """:raises BadInput: there is none, or one is unknown"""
    from holdfast.core.answers.access import AccessRole

    known = ", ".join(AccessRole)
    if not given:
        raise BadInput("--role", f"is needed: {known}")
    for each in given:
        if each not in set(AccessRole):
            raise BadInput("--role", f"{each!r} is none of {known}")
    return [AccessRole(each) for each in given]


def _rights(each: CertificateFacts) -> str:
    if not each.roles:
        return "no role: it has no right here"
    clusters = "every cluster" if "*" in each.clusters else ", ".join(each.clusters) or "no cluster"
    return f"{', '.join(each.roles)} of {clusters}"


def _lasting(each: CertificateFacts) -> str:
    if each.days_left < 0:
        return f"EXPIRED on {each.ends:%Y-%m-%d}"
    soon = " (renew it)" if each.days_left < SOON_DAYS else ""
    return f"until {each.ends:%Y-%m-%d}, {each.days_left} days{soon}"


def _as_json(each: CertificateFacts) -> dict[str, Any]:
    return {
        **asdict(each),
        "path": str(each.path),
        "begins": each.begins.isoformat(),
        "ends": each.ends.isoformat(),
        "days_left": each.days_left,
    }
