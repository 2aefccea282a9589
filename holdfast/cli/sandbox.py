"""``holdfast sandbox``: a local cluster of real servers to experiment with, on loopback or on hosts of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli import lab
from holdfast.cli.kit.columns import print_done
from holdfast.cli.lab import AsJson, Folder
from holdfast.errors import BadInput

if TYPE_CHECKING:
    from holdfast.sandbox.lab.lab import Lab
    from holdfast.sandbox.lab.plan import LabShape
    from holdfast.sandbox.local.cluster import Sandbox
    from holdfast.sandbox.local.spec import Spec

app = typer.Typer(
    help="A local cluster of real servers, on loopback or on hosts of its own.",
    no_args_is_help=True,
    add_completion=False,
)
app.registered_commands += lab.app.registered_commands


class ServerChoice(StrEnum):
    MARIADB = "mariadb"
    MYSQL = "mysql"


Who = Annotated[str, typer.Argument(help="A member's name, or: primary.", metavar="MEMBER")]
MemberName = Annotated[str, typer.Argument(metavar="MEMBER", help="A member's name.")]
Started = Annotated[str, typer.Argument(metavar="NAME", help="A member's name, or: manager.")]


@app.command()
def up(
    server: Annotated[
        ServerChoice | None,
        typer.Option("--server", help="Which servers [default: mariadb]", show_default=False),
    ] = None,
    members: Annotated[int | None, typer.Option(min=1, max=7, help="How many [default: 3]")] = None,
    folder: Folder = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the manager, 0 for any; agents and servers follow [default: 7400]"
        ),
    ] = None,
    server_binary: Annotated[
        Path | None, typer.Option(help="Use this server instead of the one that is found.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting that it begins with."),
    ] = None,
    hosts: Annotated[
        bool,
        typer.Option("--hosts", help="A lab: each part on a host of its own; needs root, ip, nft."),
    ] = False,
    managers: Annotated[
        int | None,
        typer.Option(min=1, max=5, help="With --hosts; and as many etcd nodes [default: 3]"),
    ] = None,
    vip: Annotated[
        bool, typer.Option("--vip", help="With --hosts: a virtual address, on at the primary.")
    ] = False,
    haproxy: Annotated[
        bool, typer.Option("--haproxy", help="With --hosts: HAProxy on a host of its own.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a cluster, or one that was stopped, and return when it is whole."""
    from holdfast.sandbox.local.spec import default_dir

    where = folder or default_dir()
    if hosts or lab.is_lab(where):
        if base_port is not None:
            raise BadInput(
                "--base-port", "is not for a lab of hosts: each has an address of its own"
            )
        shape = _lab_shape(where, server, members, managers, server_binary, settings, vip, haproxy)
        _up_lab(where, shape, as_json)
        return
    if vip:
        raise BadInput("--vip", "needs --hosts: on loopback there is no network for it to move in")
    if haproxy:
        raise BadInput("--haproxy", "is for --hosts: on loopback HAProxy runs where it is found")
    if managers is not None:
        raise BadInput("--managers", "needs --hosts: a sandbox on loopback has one manager")
    from holdfast.core.gtid import Flavor
    from holdfast.sandbox.local.cluster import Sandbox
    from holdfast.sandbox.local.spec import read_saved, saved_path

    kept = read_saved(where)[0] if saved_path(where).exists() else None
    sandbox = Sandbox.create(
        where,
        Flavor(server.value) if server else (kept.flavor if kept else Flavor.MARIADB),
        members or (kept.size if kept else 3),
        _base_port(base_port, kept.base_port if kept else None),
        server_binary,
        _on_stderr,
        _settings(settings),
    )
    answer = _started(sandbox, is_new=kept is None)
    description = describe(sandbox)
    if as_json:
        print(json.dumps(description))
    else:
        _print_description(description, answer["primary"])


@app.command()
def down(
    folder: Folder = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove its data as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop every process of the cluster; its data stays, unless told otherwise."""
    from holdfast.sandbox.local.spec import default_dir

    say = None if as_json else _on_stderr
    (_lab(folder, say) or _open(folder, say)).down(remove)
    where = (folder or default_dir()).absolute()
    print_done(as_json, f"stopped{' and removed' if remove else ''}", dir=str(where))


@app.command()
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show the cluster; exits with 4 if it does not take writes."""
    from holdfast.cli.show.status import show

    if found := _lab(folder):
        show(found.status(), as_json)
        return
    sandbox = _open(folder)
    status, addresses = sandbox.status(), lab.addresses(sandbox)
    if addresses and not as_json:
        print(f"haproxy: write at {addresses['write']}, read at {addresses['read']}")
    show(status | ({"haproxy": addresses} if addresses else {}), as_json)


@app.command()
def kill(member: Who, folder: Folder = None, as_json: AsJson = False) -> None:
    """SIGKILL to a member's server; in a lab of hosts also to a manager, etcd node or HAProxy."""
    found = _lab(folder)
    name = lab.kill(found, member) if found else _open(folder).kill_server(member)
    print_done(as_json, "killed", member=name)


@app.command()
def stop(member: Who, folder: Folder = None, as_json: AsJson = False) -> None:
    """SIGSTOP to a member's server: it hangs, with its connections open."""
    found = _lab(folder)
    name = lab.freeze_server(found, member) if found else _open(folder).stop(member)
    print_done(as_json, "stopped", member=name)


@app.command()
def cont(member: MemberName, folder: Folder = None, as_json: AsJson = False) -> None:
    """SIGCONT to a member's server that was stopped."""
    if found := _lab(folder):
        found.thaw_server(member)
    else:
        _open(folder).cont(member)
    print_done(as_json, "continued", member=member)


@app.command()
def start(member: Started, folder: Folder = None, as_json: AsJson = False) -> None:
    """Start a member's agent again, which starts its server, or the manager; in a lab of hosts, any host's daemon."""
    if found := _lab(folder):
        found.start_host(member)
    else:
        _open(folder).start(member)
    print_done(as_json, "started", member=member)


@app.command()
def add(
    empty: Annotated[
        bool, typer.Option("--empty", help="Without any data: it has to be cloned.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Make one more member, and add it to the cluster."""
    sandbox = _open(folder, None if as_json else _on_stderr)
    print_done(as_json, "added", member=sandbox.add_member(empty))


def _lab_shape(
    where: Path,
    server: ServerChoice | None,
    members: int | None,
    managers: int | None,
    binary: Path | None,
    settings: list[str] | None,
    vip: bool,
    haproxy: bool,
) -> LabShape:
    """The lab's shape; what no option says is as it is in the existing lab."""
    from holdfast.core.gtid import Flavor
    from holdfast.sandbox.lab.plan import LabShape, read_saved

    kept = read_saved(where) if lab.is_lab(where) else None
    return LabShape(
        Flavor(server.value) if server else (kept.flavor if kept else Flavor.MARIADB),
        members or (kept.size if kept else 3),
        managers or (kept.manager_count if kept else 3),
        binary,
        _settings(settings),
        vip=vip or (kept is not None and kept.vip),
        haproxy=haproxy or (kept is not None and kept.haproxy),
    )


def _up_lab(where: Path, wanted: LabShape, as_json: bool) -> None:
    from holdfast.sandbox.lab.lab import Lab

    made = Lab.create(where, wanted, _on_stderr)
    answer = made.up()
    if as_json:
        print(json.dumps(lab.describe(made)))
    else:
        lab.print_description(made, str(answer["primary"]))


def _base_port(asked: int | None, kept: int | None) -> int:
    from holdfast.sandbox.local.spec import BASE_PORT, free_base_port

    if asked == 0:
        return free_base_port() if kept is None else kept
    if asked is None:
        return BASE_PORT if kept is None else kept
    return asked


def _started(sandbox: Sandbox, is_new: bool) -> dict[str, Any]:
    """Start it. When interrupted, leave nothing behind that was not there before: no process, and of a new one no
    file."""
    from holdfast.sandbox.waiting import remove_quietly

    try:
        return sandbox.up()
    except KeyboardInterrupt:
        print("holdfast: interrupted: it is stopped again", file=sys.stderr, flush=True)
        if is_new:
            remove_quietly(sandbox)
        else:
            sandbox.down()
        raise


def describe(sandbox: Sandbox) -> dict[str, Any]:
    """What an operator or program needs to use the cluster."""
    spec = sandbox.spec
    return {
        "dir": str(spec.dir),
        "manager_url": spec.manager_url,
        "token_file": str(spec.token_file),
        "client": client_program(spec),
        "members": [
            {"name": member.name, "host": "127.0.0.1", "port": member.port}
            for member in spec.present
        ],
        "haproxy": lab.addresses(sandbox),
        "user": sandbox.accounts.app.user,
        "password": sandbox.accounts.app.password,
    }


def client_program(spec: Spec) -> list[str]:
    """The command of a command-line client: one on PATH, else the server's own; [] where there is none."""
    from holdfast.sandbox.servers import trees

    own: trees.Flavor = spec.flavor.value
    for name in (own, *({"mysql", "mariadb"} - {own})):
        if shutil.which(name):
            return [name]
    try:
        return list(trees.find(own, spec.binary).tool("mysql"))
    except BadInput:
        return []


def _settings(pairs: list[str] | None) -> dict[str, str] | None:
    """:raises BadInput: one is not KEY=VALUE"""
    if pairs is None:
        return None
    found = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise BadInput("--set", f"must be KEY=VALUE, not {pair}")
        found[key] = value
    return found


def _lab(folder: Path | None, say: Any = None) -> Lab | None:
    """The lab of hosts in that folder, if there is one."""
    from holdfast.sandbox.local.spec import default_dir

    where = folder or default_dir()
    if not lab.is_lab(where):
        return None
    from holdfast.sandbox.lab.lab import Lab
    from holdfast.sandbox.waiting import quiet

    return Lab.open(where, say or quiet)


def _open(folder: Path | None, say: Any = None) -> Sandbox:
    from holdfast.sandbox.local.cluster import Sandbox
    from holdfast.sandbox.local.spec import default_dir
    from holdfast.sandbox.waiting import quiet

    return Sandbox.open(folder or default_dir(), say or quiet)


def _print_description(description: dict[str, Any], primary: str) -> None:
    print(f"whole: {primary} is primary of {len(description['members'])} members")
    print(f"  folder    {description['dir']}")
    print(f"  manager   {description['manager_url']}")
    for member in description["members"]:
        role = "   primary" if member["name"] == primary else ""
        print(f"  {member['name']:9} {member['host']}:{member['port']}{role}")
    first = next(each for each in description["members"] if each["name"] == primary)
    host, port = first["host"], first["port"]
    if addresses := description["haproxy"]:
        print(f"  haproxy   {addresses['write']}   write: always the primary")
        print(f"            {addresses['read']}   read: the replicas")
        host, _, port = addresses["write"].rpartition(":")
    who = f"-h {host} -P {port} -u {description['user']} -p{description['password']} app"
    if client := description["client"]:
        print(f"  connect   {shlex.join(client)} {who}")
    else:
        print(f"  connect   with any client of MySQL or MariaDB (none is on this machine): {who}")
    from holdfast.sandbox.local.spec import default_dir

    if Path(description["dir"]) != default_dir().absolute():
        print("  commands  find it by")
        print(f"            export HOLDFAST_MANAGER={description['manager_url']}")
        print(f"            export HOLDFAST_TOKEN_FILE={shlex.quote(description['token_file'])}")


def _on_stderr(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
