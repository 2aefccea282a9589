"""The shape of a lab, and the names of all that it makes on the machine: everything is derived from its saved file.

The file is written before anything is made, so that everything can be found and removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.sandbox import saved
from holdfast.sandbox.local.spec import MOST_MEMBERS, MemberSpec, checked

NETWORK = "10.86.0"
PREFIX_BITS = 24
SERVER_PORT, AGENT_PORT, MANAGER_PORT, ETCD_PORT, ETCD_PEER_PORT = 3306, 7401, 7400, 2379, 2380
MOST_MANAGERS = 5
CHECKS_PORT, WRITE_PORT, READ_PORT, RUNTIME_PORT = 7402, 3306, 3307, 9901
"""Ports: of the agents' answers to HAProxy's checks, and of HAProxy for clients and managers."""
CLIENT, HAPROXY = "client", "haproxy"
_MEMBERS_FROM, _MANAGERS_FROM, _ETCD_FROM = 1, 11, 21
_CLIENT_AT, _HAPROXY_AT, _VIP_AT, _BRIDGE_AT = 31, 41, 100, 254
"""The last numbers of addresses."""


@dataclass(frozen=True, slots=True)
class LabPlan:
    """:ivar id: unique on this machine; part of every name
    :ivar managers: their number, and that of etcd nodes where it is more than one
    :ivar settings: of the managers' file, by dotted key
    :ivar gate: whether agents have the kernel close the server's port when the lease ends
    :ivar vip: whether agents hold the virtual address at the primary
    :ivar haproxy: whether there is a host with HAProxy
    """

    dir: Path
    id: str
    flavor: Flavor
    size: int
    manager_count: int
    binary: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    gate: bool = True
    vip: bool = False
    haproxy: bool = False

    # -- who is there -----------------------------------------------------------------------------

    @property
    def members(self) -> tuple[MemberSpec, ...]:
        return tuple(
            MemberSpec(
                name=f"m{number}",
                number=number,
                folder=self.dir / f"m{number}",
                socket=self.sockets / f"m{number}.sock",
                port=SERVER_PORT,
                agent_port=AGENT_PORT,
                host=_address(_MEMBERS_FROM + number - 1),
                listens="0.0.0.0" if self.vip else "",
                checks_port=CHECKS_PORT if self.haproxy else 0,
            )
            for number in range(1, self.size + 1)
        )

    @property
    def managers(self) -> tuple[str, ...]:
        return tuple(f"manager{number}" for number in range(1, self.manager_count + 1))

    @property
    def etcds(self) -> tuple[str, ...]:
        if self.manager_count == 1:
            return ()
        return tuple(f"etcd{number}" for number in range(1, self.manager_count + 1))

    @property
    def hosts(self) -> tuple[str, ...]:
        members = (member.name for member in self.members)
        proxy = (HAPROXY,) if self.haproxy else ()
        return (*members, *self.managers, *self.etcds, *proxy, CLIENT)

    def member(self, name: str) -> MemberSpec:
        """:raises BadInput: there is none of that name"""
        for member in self.members:
            if member.name == name:
                return member
        raise _unknown("member", name, [member.name for member in self.members])

    def check_host(self, name: str, among: tuple[str, ...] = ()) -> str:
        """Returns the name itself.

        :raises BadInput: it is none of ``among``, or of all hosts
        """
        known = among or self.hosts
        if name not in known:
            raise _unknown("host", name, known)
        return name

    def group(self, text: str, other: str = "") -> tuple[str, ...]:
        """The hosts that ``"m1"``, ``"m1,m2"`` or ``"all"`` stand for.

        :param other: the group on the other side, which ``"all"`` leaves out
        :raises BadInput: there is no such host
        """
        if text == "all":
            left_out = self.group(other) if other and other != "all" else ()
            return tuple(host for host in self.hosts if host not in left_out)
        return tuple(self.check_host(name.strip()) for name in text.split(","))

    # -- where they are ---------------------------------------------------------------------------

    def address(self, host: str) -> str:
        """:raises BadInput: there is no such host"""
        self.check_host(host)
        if host in self.managers:
            return _address(_MANAGERS_FROM + self.managers.index(host))
        if host in self.etcds:
            return _address(_ETCD_FROM + self.etcds.index(host))
        if host in (CLIENT, HAPROXY):
            return _address(_CLIENT_AT if host == CLIENT else _HAPROXY_AT)
        return self.member(host).host

    @property
    def vip_address(self) -> str:
        """The address of the host where the primary is, in a lab that has a virtual address."""
        return _address(_VIP_AT)

    @property
    def bridge_address(self) -> str:
        return _address(_BRIDGE_AT)

    def namespace(self, host: str) -> str:
        return f"hf{self.id}-{host}"

    @property
    def bridge_namespace(self) -> str:
        return f"hf{self.id}-net"

    @property
    def cell_root(self) -> str:
        """The name of the folder of its cgroups."""
        return f"hf{self.id}"

    # -- its files --------------------------------------------------------------------------------

    @property
    def sockets(self) -> Path:
        """Short, as a socket's path must be below 108 bytes."""
        return Path(f"/tmp/holdfast-{self.id}")

    @property
    def token_file(self) -> Path:
        return self.dir / "token"

    def image(self, host: str) -> Path:
        return self.dir / "disks" / f"{host}.img"

    def log(self, host: str) -> Path:
        """The log of the host's own daemon: beside the disks, as a service manager would keep it."""
        return self.dir / "logs" / f"{host}.log"

    def own(self, host: str) -> Path:
        """The folder of what belongs to that host without being on its disk: see ``daemon.py``."""
        return self.dir / "own" / host

    def manager_config(self, manager: str) -> Path:
        return self.dir / manager / "manager.yaml"

    @property
    def haproxy_config(self) -> Path:
        return self.dir / HAPROXY / "haproxy.cfg"

    def etcd_data(self, node: str) -> Path:
        return self.dir / node / "data"


@dataclass(frozen=True, slots=True)
class LabShape:
    """The wanted shape of a lab.

    :ivar size: how many members
    :ivar managers: with more than one there are as many etcd nodes; one keeps its record in a file of its own
    :ivar binary: of the server; None: the one that is found
    :ivar settings: of the managers' file, by dotted key; None: those of the existing lab
    :ivar gate: agents have the kernel close the server's port when the lease ends
    :ivar vip: agents hold a virtual address (``plan.vip_address``) at the primary
    :ivar haproxy: HAProxy runs on a host ``haproxy``, before the members
    """

    flavor: Flavor
    size: int = 3
    managers: int = 3
    binary: Path | None = None
    settings: Mapping[str, Any] | None = None
    gate: bool = True
    vip: bool = False
    haproxy: bool = False


def new_plan(folder: Path, wanted: LabShape) -> LabPlan:
    """:raises BadInput: the folder holds something else, or a number is out of bounds"""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput("--dir", f"{folder} is not empty, and holds no lab")
    if not 1 <= wanted.size <= MOST_MEMBERS:
        raise BadInput("--members", f"must be from 1 to {MOST_MEMBERS}, not {wanted.size}")
    if not 1 <= wanted.managers <= MOST_MANAGERS:
        raise BadInput("--managers", f"must be from 1 to {MOST_MANAGERS}, not {wanted.managers}")
    return LabPlan(
        folder,
        secrets.token_hex(3),
        wanted.flavor,
        wanted.size,
        wanted.managers,
        wanted.binary and wanted.binary.absolute(),
        checked(wanted.settings, wanted.size),
        wanted.gate,
        wanted.vip,
        wanted.haproxy,
    )


def saved_path(folder: Path) -> Path:
    return folder / "lab.json"


def write_saved(plan: LabPlan) -> None:
    fields = {key: value for key, value in asdict(plan).items() if key != "dir"}
    saved.write(saved_path(plan.dir), fields)


def read_saved(folder: Path) -> LabPlan:
    """:raises BadInput: there is no lab in that folder, or its file is damaged"""
    path = saved_path(folder.absolute())
    missing = f"there is no lab in {folder}: make one with holdfast sandbox up --hosts"
    found = saved.read(path, missing)
    plan = saved.parsed(LabPlan, {**found, "dir": path.parent}, path)
    if not plan.id.isalnum() or len(plan.id) > 8:
        raise BadInput("--dir", f"cannot read {path}: {plan.id!r} is no lab's id")
    return plan


def refuse_other(plan: LabPlan, wanted: Mapping[str, Any]) -> None:
    """:raises BadInput: the lab has another shape; names the option"""
    for key, value in wanted.items():
        has = getattr(plan, key)
        if has != value:
            option = {"size": "members", "manager_count": "managers", "flavor": "server"}
            raise BadInput(
                f"--{option.get(key, key)}",
                f"the lab in {plan.dir} was made with {has}, not {value}: give it the same, choose "
                "another --dir, or remove it with holdfast sandbox down --remove",
            )


def _address(number: int) -> str:
    return f"{NETWORK}.{number}"


def _unknown(kind: str, name: str, known: tuple[str, ...] | list[str]) -> BadInput:
    return BadInput(kind, f"there is no {name!r} in this lab: it has {', '.join(known)}")
