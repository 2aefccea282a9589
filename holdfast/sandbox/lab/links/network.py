"""The hosts' networks: a namespace for each, and one more with the bridge between them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import Refused
from holdfast.sandbox.lab.plan import PREFIX_BITS, LabPlan
from holdfast.sandbox.lab.tools import attempt, run
from holdfast.sandbox.servers import trees

NAMESPACES = Path("/run/netns")
BRIDGE = "bridge"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan

    def make(self) -> None:
        """:raises Refused: part of it exists already, or the kernel refuses"""
        plan = self._plan
        hosts = {host: plan.namespace(host) for host in plan.hosts}
        _batch("", [f"netns add {name}" for name in (plan.bridge_namespace, *hosts.values())])
        lines = [
            # the bridge forwards from its first moment, and reads nothing but addresses
            f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"addr add {plan.bridge_address}/{PREFIX_BITS} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            "link set lo up",
        ]
        for host, name in hosts.items():
            mac = hardware_address(plan.address(host))
            lines.append(f"link add {host} type veth peer name eth0 address {mac} netns {name}")
            lines.append(f"link set {host} master {BRIDGE} up")
        _batch(plan.bridge_namespace, lines)
        for host, name in hosts.items():
            _batch(
                name,
                [
                    "link set lo up",
                    f"addr add {plan.address(host)}/{PREFIX_BITS} dev eth0",
                    "link set eth0 up",
                ],
            )

    def remove(self) -> None:
        """Remove what exists of it. Processes in it must have ended."""
        for name in self.found():
            attempt(["ip", "netns", "del", name])
        left = self.found()
        if left:
            raise Refused(f"these network namespaces could not be removed: {', '.join(left)}")

    def found(self) -> list[str]:
        """The lab's namespaces that exist."""
        prefix = self._plan.namespace("")
        if not NAMESPACES.is_dir():
            return []
        return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith(prefix))

    def path(self, host: str = "") -> Path:
        """The path of a host's namespace, or without a host of the bridge's."""
        plan = self._plan
        return NAMESPACES / (plan.namespace(host) if host else plan.bridge_namespace)

    @contextmanager
    def inside(self, host: str = "") -> Iterator[None]:
        """Within the block this thread is in the host's network, or beside the bridge.

        :raises Refused: the lab is down
        """
        try:
            there = os.open(self.path(host), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Refused(
                f"the lab in {self._plan.dir} is down: start it with holdfast sandbox up"
            ) from None
        try:
            here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(there)
                try:
                    yield
                finally:
                    _enter(here)
            finally:
                os.close(here)
        finally:
            os.close(there)

    def plug(self, host: str, plugged: bool) -> None:
        """Connect the host to the bridge, or unplug its cable.

        :raises Refused: the lab is down
        """
        state = "up" if plugged else "down"
        run(["ip", "-n", self._plan.bridge_namespace, "link", "set", host, state])

    def plugged(self, host: str) -> bool:
        """Whether the host is connected; also True where there is no such host now."""
        shown = attempt(
            ["ip", "-n", self._plan.bridge_namespace, "-o", "link", "show", "dev", host]
        )
        return bool(shown.returncode) or ",UP" in shown.stdout.partition(">")[0]

    def filter(self, ruleset: str) -> None:
        """Give the bridge these rules, in one step."""
        enter = ["nsenter", f"--net={self.path()}", "--"]
        run([*enter, *trees.companion("nft"), "-f", "-"], ruleset)


def hardware_address(address: str) -> str:
    """Local and fixed, so that a capture shows which host a frame is of."""
    return f"02:68:66:00:00:{int(address.rpartition('.')[2]):02x}"


def _batch(namespace: str, lines: list[str]) -> None:
    where = ["-n", namespace] if namespace else []
    run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise Refused(f"cannot enter the network namespace: {os.strerror(ctypes.get_errno())}")
