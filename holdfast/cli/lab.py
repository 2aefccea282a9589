"""``holdfast sandbox`` for a lab of hosts (``up --hosts``): faults of its hosts and of the network between them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.kit.columns import print_done
from holdfast.cli.kit.durations import METAVAR, span
from holdfast.errors import BadInput, Refused

if TYPE_CHECKING:
    from holdfast.sandbox.lab.lab import Lab
    from holdfast.sandbox.local.cluster import Sandbox

PANEL = "A lab of hosts (up --hosts)"

app = typer.Typer()

Folder = Annotated[
    Path | None, typer.Option("--dir", help="Its folder [default: holdfast/sandbox in the state]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Host = Annotated[str, typer.Argument(metavar="HOST", help="A host's name, or: primary, leader.")]
Side = Annotated[
    str, typer.Argument(metavar="HOSTS", help="m1, or m1,m2, or: all, primary, leader.")
]
OneWay = Annotated[bool, typer.Option("--one-way", help="Only from the first to the second.")]


@app.command(rich_help_panel=PANEL)
def hosts(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show the hosts: addresses, processes, and the faults that are in force."""
    from holdfast.sandbox.lab.table import rows

    found = rows(_open(folder))
    if as_json:
        print(json.dumps(found))
        return
    from holdfast.cli.kit.columns import print_columns

    head = ("HOST", "ADDRESS", "RUNS", "FAULTS")
    print_columns(
        head,
        [
            (
                (row["host"], ""),
                (row["address"], ""),
                (", ".join(f"{kind} {pid}" for kind, pid in row["processes"].items()) or "-", ""),
                ("; ".join(row["faults"]) or "-", "red" if row["faults"] else ""),
            )
            for row in found
        ],
    )


@app.command(rich_help_panel=PANEL)
def cut(
    a: Side, b: Side, one_way: OneWay = False, folder: Folder = None, as_json: AsJson = False
) -> None:
    """Block all traffic between two hosts, or groups of them."""
    lab = _open(folder)
    a, b = _named(lab, a), _named(lab, b)
    lab.cut(a, b, one_way)
    print_done(as_json, "cut", between=_between(a, b, one_way))


@app.command(rich_help_panel=PANEL)
def loss(
    a: Side,
    b: Side,
    share: Annotated[float, typer.Argument(help="From 0 to 1.")],
    one_way: OneWay = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Drop packets between two hosts by chance."""
    lab = _open(folder)
    a, b = _named(lab, a), _named(lab, b)
    lab.loss(a, b, share, one_way)
    print_done(as_json, f"{share:.0%} of the packets are lost", between=_between(a, b, one_way))


@app.command(rich_help_panel=PANEL)
def delay(
    a: Side,
    b: Side,
    ms: Annotated[float, typer.Argument(help="Milliseconds, each way.")],
    jitter_ms: Annotated[float, typer.Argument(help="Up to as much more.")] = 0.0,
    one_way: OneWay = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Delay packets between two hosts."""
    lab = _open(folder)
    a, b = _named(lab, a), _named(lab, b)
    lab.delay(a, b, ms, jitter_ms, one_way)
    print_done(as_json, f"{ms:g} ms late", between=_between(a, b, one_way))


@app.command(rich_help_panel=PANEL)
def heal(
    a: Annotated[
        str | None, typer.Argument(metavar="HOSTS", help="As for cut [default: all hosts]")
    ] = None,
    b: Annotated[
        str | None, typer.Argument(metavar="HOSTS", help="As for cut [default: all hosts]")
    ] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Remove network faults: between two hosts, of one host, or all."""
    lab = _open(folder)
    lab.heal(a and _named(lab, a), b and _named(lab, b))
    print_done(as_json, "healed", between=" - ".join(each for each in (a, b) if each) or "all")


@app.command(rich_help_panel=PANEL)
def freeze(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Freeze all processes of a host."""
    _do(folder, as_json, host, "freeze", "frozen")


@app.command(rich_help_panel=PANEL)
def thaw(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Continue the processes of a host that was frozen."""
    _do(folder, as_json, host, "thaw", "thawed")


@app.command("disk-full", rich_help_panel=PANEL)
def disk_full(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Fill a member's disk."""
    _do(folder, as_json, host, "disk_full", "its disk is full")


@app.command("disk-free", rich_help_panel=PANEL)
def disk_free(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Free the disk again."""
    _do(folder, as_json, host, "disk_free", "its disk has room again")


@app.command("disk-stall", rich_help_panel=PANEL)
def disk_stall(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Make writes to a member's disk hang in the kernel."""
    _do(folder, as_json, host, "disk_stall", "its disk stalls")


@app.command("disk-go", rich_help_panel=PANEL)
def disk_go(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Let a stalled disk work again."""
    _do(folder, as_json, host, "disk_go", "its disk works again")


@app.command("kill-agent", rich_help_panel=PANEL)
def kill_agent(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Send SIGKILL to a member's agent only."""
    _do(folder, as_json, host, "kill_agent", "its agent is killed")


@app.command("hang-agent", rich_help_panel=PANEL)
def hang_agent(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Freeze a member's agent (SIGSTOP); its server keeps running. `cont-agent` undoes it."""
    _do(folder, as_json, host, "hang_agent", "its agent hangs")


@app.command("cont-agent", rich_help_panel=PANEL)
def cont_agent(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Continue an agent that was frozen."""
    _do(folder, as_json, host, "cont_agent", "its agent runs again")


@app.command("cut-power", rich_help_panel=PANEL)
def cut_power(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Like kill-host, but the member's disk keeps only what was flushed. `start` starts it again."""
    _do(folder, as_json, host, "cut_power", "off")


@app.command("set-clock", rich_help_panel=PANEL)
def set_clock(
    host: Host,
    seconds: Annotated[
        float,
        typer.Argument(
            parser=span,
            metavar=METAVAR,
            help="Ahead of the machine's, such as 1h; negative: behind.",
        ),
    ],
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Step the wall clock of a host's agent or manager: `set-clock manager1 -- -3600`."""
    lab = _open(folder)
    name = _named(lab, host)
    lab.set_clock(name, seconds)
    print_done(as_json, f"its clock is {seconds:+g} s", host=name)


@app.command("stop-manager", rich_help_panel=PANEL)
def stop_manager(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Send SIGTERM to a manager: it hands its leadership over and ends."""
    _do(folder, as_json, host, "stop_manager", "stopped")


@app.command("kill-host", rich_help_panel=PANEL)
def kill_host(host: Host, folder: Folder = None, as_json: AsJson = False) -> None:
    """Cut its power: all of its processes are killed at once. `start` starts it again."""
    _do(folder, as_json, host, "kill_host", "off")


@app.command(
    rich_help_panel=PANEL,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
def run(
    host: Host,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND ...", help="A program, and its arguments.")
    ],
    folder: Folder = None,
) -> None:
    """Run a command on a host: `run --dir D client mysql -h 10.86.0.1 ...`."""
    lab = _open(folder)
    argv = lab.command(_named(lab, host), command)
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def kill(lab: Lab, who: str) -> str:
    """Send SIGKILL to a member's server, or to a manager, etcd node or HAProxy; returns its name."""
    from holdfast.sandbox.lab.plan import HAPROXY

    name = _named(lab, who)
    if name in lab.plan.managers:
        lab.kill_manager(name)
    elif name in lab.plan.etcds:
        lab.kill_etcd(name)
    elif name == HAPROXY:
        lab.kill_haproxy()
    else:
        lab.kill_server(name)
    return name


def freeze_server(lab: Lab, who: str) -> str:
    name = _named(lab, who)
    lab.freeze_server(name)
    return name


def is_lab(folder: Path) -> bool:
    """Whether there is a lab of hosts in that folder."""
    return (folder / "lab.json").exists()


def describe(lab: Lab) -> dict[str, Any]:
    """What an operator or program needs to use the lab."""
    from holdfast.sandbox.lab.plan import MANAGER_PORT

    return {
        "dir": str(lab.plan.dir),
        "managers": [f"http://{lab.address(name)}:{MANAGER_PORT}" for name in lab.plan.managers],
        "members": [
            {"name": each.name, "host": each.host, "port": each.port} for each in lab.members()
        ],
        "hosts": {host: lab.address(host) for host in lab.hosts()},
        "vip": lab.plan.vip_address if lab.plan.vip else None,
        "haproxy": addresses(lab),
        "user": lab.accounts.app.user,
        "password": lab.accounts.app.password,
    }


def addresses(sandbox: Lab | Sandbox) -> dict[str, str] | None:
    """Where HAProxy takes connections, if there is one."""
    found = {use: sandbox.endpoint(use) for use in ("write", "read")}
    return {use: f"{at[0]}:{at[1]}" for use, at in found.items() if at} or None


def print_description(lab: Lab, primary: str) -> None:
    found = describe(lab)
    host = found["vip"] or lab.plan.member(primary).host
    print(f"whole: {primary} is primary of {len(found['members'])} members")
    print(f"  folder    {found['dir']}")
    for name, address in found["hosts"].items():
        print(f"  {name:9} {address}{'   primary' if name == primary else ''}")
    if found["vip"]:
        print(f"  address   {found['vip']}   virtual: always the primary")
    if proxy := found["haproxy"]:
        print(f"  haproxy   {proxy['write']}   write: always the primary")
        print(f"            {proxy['read']}   read: the replicas")
    print(
        f"  connect   holdfast sandbox run --dir {found['dir']} client mysql -h {host} "
        f"-u {found['user']} -p{found['password']} app"
    )


def _open(folder: Path | None) -> Lab:
    from holdfast.sandbox.lab.lab import Lab
    from holdfast.sandbox.local.spec import default_dir

    where = folder or default_dir()
    if not is_lab(where) and (where / "sandbox.json").exists():
        raise BadInput(
            "--dir",
            f"the sandbox in {where} has no hosts: make one with holdfast sandbox up --hosts",
        )
    return Lab.open(where)


def _named(lab: Lab, text: str) -> str:
    """The text with ``primary`` and ``leader`` replaced by names."""
    found = []
    for word in text.split(","):
        if word == "primary":
            word = lab.primary()
        elif word == "leader" and not (word := lab.leader()):
            raise Refused("no manager leads now: name one")
        found.append(word)
    return ",".join(found)


def _do(folder: Path | None, as_json: bool, host: str, verb: str, what: str) -> None:
    lab = _open(folder)
    name = _named(lab, host)
    getattr(lab, verb)(name)
    print_done(as_json, what, host=name)


def _between(a: str, b: str, one_way: bool) -> str:
    return f"{a} {'->' if one_way else '-'} {b}"
