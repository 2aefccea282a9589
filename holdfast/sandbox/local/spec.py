"""The shape of a sandbox: its settings, its ports, and the files in its folder."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.config.settings import check, effective, layer_of_pairs, refuse_strangers
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused
from holdfast.sandbox import saved

CLUSTER = "sandbox"
HOST = "127.0.0.1"
BASE_PORT = 7400
MOST_MEMBERS = 7
WRITE, READ = 8, 9
"""Where HAProxy takes connections."""
SERVERS_FROM = 11
CHECKS_FROM = 21
"""Ports: the manager at the base, agents behind it, then HAProxy's, servers, the agents' answers to its checks."""
FREE_PORTS = range(20000, 32000, 30)
"""Where a sandbox without a given port looks for ports: below those of outgoing connections."""


def default_dir() -> Path:
    """``$XDG_STATE_HOME/holdfast/sandbox``."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "holdfast" / "sandbox"


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """Where one member's parts are; ``folder`` holds all of its files but the socket.

    :ivar listens: the address at which its server takes connections, if that is not ``host``
    """

    name: str
    number: int
    folder: Path
    socket: Path
    port: int
    agent_port: int
    host: str = HOST
    listens: str = ""
    checks_port: int = 0

    @property
    def datadir(self) -> Path:
        return self.folder / "data"

    @property
    def option_file(self) -> Path:
        return self.folder / "my.cnf"

    @property
    def agent_config(self) -> Path:
        return self.folder / "agent.yaml"

    @property
    def state_dir(self) -> Path:
        return self.folder / "agent"

    @property
    def tmpdir(self) -> Path:
        return self.folder / "tmp"

    @property
    def error_log(self) -> Path:
        return self.folder / "server.log"


@dataclass(frozen=True, slots=True)
class Spec:
    """Settings of a sandbox, as ``sandbox.json`` keeps them.

    :ivar sockets: a folder with a short path, as a socket's must be below 108 bytes
    :ivar size: members that the manager's file begins with; :ivar further: those that were made later
    :ivar binary: the server binary that was requested; None for the one that is found
    :ivar settings: of the manager's file, by dotted key
    :ivar removed: members that the manager had removed when it was stopped
    """

    dir: Path
    flavor: Flavor
    size: int
    base_port: int
    sockets: Path
    binary: Path | None = None
    further: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[MemberSpec, ...]:
        return self.places[: self.size + self.further]

    @property
    def places(self) -> tuple[MemberSpec, ...]:
        """All members that there can be."""
        return tuple(
            MemberSpec(
                name=f"m{number}",
                number=number,
                folder=self.dir / f"m{number}",
                socket=self.sockets / f"m{number}.sock",
                port=self.base_port + SERVERS_FROM + number - 1,
                agent_port=self.base_port + number,
                checks_port=self.base_port + CHECKS_FROM + number - 1,
            )
            for number in range(1, MOST_MEMBERS + 1)
        )

    @property
    def present(self) -> tuple[MemberSpec, ...]:
        """Members that are started with the rest."""
        return tuple(member for member in self.members if member.name not in self.removed)

    @property
    def first_members(self) -> tuple[MemberSpec, ...]:
        """Members that the manager's file names."""
        return self.members[: self.size]

    def member(self, name: str) -> MemberSpec:
        for member in self.members:
            if member.name == name:
                return member
        names = ", ".join(member.name for member in self.members)
        raise BadInput("member", f"there is no {name!r} in this sandbox: it has {names}")

    @property
    def manager_url(self) -> str:
        return f"http://{HOST}:{self.base_port}"

    @property
    def manager_config(self) -> Path:
        return self.dir / "manager.yaml"

    @property
    def haproxy_config(self) -> Path:
        return self.dir / "haproxy.cfg"

    @property
    def haproxy_socket(self) -> Path:
        return self.sockets / "haproxy.sock"

    @property
    def write_port(self) -> int:
        return self.base_port + WRITE

    @property
    def read_port(self) -> int:
        return self.base_port + READ

    @property
    def token_file(self) -> Path:
        return self.dir / "token"

    @property
    def store(self) -> Path:
        return self.dir / "store.db"

    @property
    def ports(self) -> dict[int, str]:
        """Every port that it uses, and for what."""
        ports = {
            self.base_port: "the manager",
            self.write_port: "HAProxy",
            self.read_port: "HAProxy",
        }
        for member in self.members:
            ports[member.agent_port] = f"{member.name}'s agent"
            ports[member.checks_port] = f"{member.name}'s agent"
            ports[member.port] = f"{member.name}'s server"
        return ports

    def check(self) -> None:
        """:raises BadInput: a number is out of bounds"""
        if not 1 <= self.size <= MOST_MEMBERS:
            raise BadInput("--members", f"must be from 1 to {MOST_MEMBERS}, not {self.size}")
        if self.size + self.further > MOST_MEMBERS:
            raise BadInput("sandbox", f"it has {MOST_MEMBERS} members, and no more can be")
        highest = 65535 - CHECKS_FROM - MOST_MEMBERS
        if not 1024 <= self.base_port <= highest:
            raise BadInput("--base-port", f"must be from 1024 to {highest}, not {self.base_port}")


def new_spec(
    folder: Path,
    flavor: Flavor,
    size: int,
    base_port: int,
    binary: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Spec:
    """Settings of a sandbox that does not exist yet.

    :raises BadInput: the folder holds something else, or a number is out of bounds
    """
    folder = folder.absolute()
    refuse_filled(folder)
    binary = binary and binary.absolute()
    spec = Spec(folder, flavor, size, base_port, Path(), binary)
    spec.check()
    found = checked(settings, size)
    sockets = Path(tempfile.mkdtemp(prefix="holdfast-", dir="/tmp"))
    return replace(spec, sockets=sockets, settings=found)


def refuse_filled(folder: Path) -> None:
    """:raises BadInput: it holds something"""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput("--dir", f"{folder} is not empty, and holds no sandbox")


def checked(settings: Mapping[str, Any] | None, size: int) -> dict[str, Any]:
    """Settings for a sandbox of that many members, in the form in which they are kept.

    :raises BadInput: naming the key
    """
    found = layer_of_pairs(settings or {})
    names = [f"m{number}" for number in range(1, size + 1)]
    refuse_strangers(found, names)
    check(effective([found], names), names)
    return found


def saved_path(folder: Path) -> Path:
    return folder / "sandbox.json"


def write_saved(spec: Spec, daemons: dict[str, dict[str, Any]]) -> None:
    """Replace ``sandbox.json``: the settings, and the processes that were started."""
    settings = {key: value for key, value in asdict(spec).items() if key != "dir"}
    saved.write(saved_path(spec.dir), {**settings, "daemons": daemons})


def read_saved(folder: Path) -> tuple[Spec, dict[str, dict[str, Any]]]:
    """:raises BadInput: there is no sandbox in that folder, or its file is damaged"""
    path = saved_path(folder.absolute())
    missing = f"there is no sandbox in {folder}: make one with holdfast sandbox up"
    found = saved.read(path, missing)
    spec = saved.parsed(Spec, {**found, "dir": path.parent}, path)
    spec.check()
    return spec, saved.parsed(_Daemons, found, path).daemons


@dataclass(frozen=True, slots=True)
class _Daemons:
    daemons: dict[str, dict[str, Any]]


def refuse_other(
    spec: Spec,
    flavor: Flavor,
    members: int,
    base_port: int,
    binary: Path | None,
    settings: Mapping[str, Any] | None,
) -> None:
    """:raises BadInput: the sandbox has another shape; names the option"""
    for key, has, wanted in (
        ("--server", spec.flavor.value, flavor.value),
        ("--members", spec.size, members),
        ("--base-port", spec.base_port, base_port),
        ("--server-binary", spec.binary, binary.absolute() if binary else spec.binary),
        (
            "--set",
            dict(spec.settings),
            dict(spec.settings) if settings is None else checked(settings, spec.size),
        ),
    ):
        if has != wanted:
            raise BadInput(
                key,
                f"the sandbox in {spec.dir} was made with {has}, not {wanted}: give it the same, "
                "choose another --dir, or remove it with holdfast sandbox down --remove",
            )


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def refuse_taken_ports(ports: dict[int, str]) -> None:
    """:raises Refused: a port is in use; names it"""
    for port, whose in ports.items():
        if not is_free(port):
            raise Refused(
                f"--base-port: port {port}, for {whose}, is in use on {HOST}; nothing was started: "
                "choose other ports with --base-port"
            )


def free_base_port(candidates: Iterable[int] = ()) -> int:
    """A base port whose whole range is free at this moment.

    :raises Refused: there is none among the candidates
    """
    tries = list(candidates) or random.sample(FREE_PORTS, len(FREE_PORTS))
    for base in tries:
        if all(is_free(base + offset) for offset in range(CHECKS_FROM + MOST_MEMBERS)):
            return base
    raise Refused("no range of free ports was found on this machine")
