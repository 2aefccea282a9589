"""A virtual address on one interface of this host: on, off, announced."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from holdfast.endpoint import netlink, sockdiag
from holdfast.endpoint.arp import Arp
from holdfast.endpoint.ndp import Ndp
from holdfast.errors import Refused

_NET_ADMIN, _NET_RAW = 12, 13
"""Numbers of capabilities (linux/capability.h)."""


class Vip:
    """:param address: ``ADDRESS/BITS``"""

    def __init__(self, address: str, interface: str) -> None:
        self.address: IPv4Interface | IPv6Interface = ip_interface(address)
        self.interface = interface
        self._talk: Arp | Ndp | None = None

    def __str__(self) -> str:
        return f"{self.address.ip}"

    def put(self, seconds: int) -> bool:
        """Have the address on for so many seconds from now; returns whether it was off before.

        :raises Refused: the kernel refuses: says what to do
        """
        try:
            return netlink.put(self.address, socket.if_nametoindex(self.interface), seconds)
        except OSError as error:
            raise Refused(self._explain("put on", error)) from None

    def remove(self) -> bool:
        """Remove the address, also from another interface of this host; returns whether it was on.

        :raises Refused: the kernel refuses: says what to do
        """
        try:
            # where it belongs first, without a search: this must be quick
            index = self._there()
            found = bool(index) and netlink.remove(self.address, index)
            for elsewhere, other in netlink.where(self.address):
                found |= netlink.remove(elsewhere, other)
        except OSError as error:
            if not netlink.where(self.address):
                return False  # without permission to remove, it may still look
            raise Refused(self._explain("taken off", error)) from None
        return found

    def hang_up(self) -> None:
        """Reset the connections that use the address: while it is on, their clients receive the reset."""
        sockdiag.reset(self.address.ip)

    def present(self) -> bool:
        return bool(netlink.where(self.address))

    def announce(self, tell: bool = True) -> None:
        """Announce that the address is here, and ask which other host has it.

        :param tell: False: only ask
        :raises Refused: it cannot be sent: clients may look for the address where it was
        """
        try:
            talk = self._talking()
            if tell:
                talk.announce()
            talk.probe()
        except OSError as error:
            self.hush()
            raise Refused(self._explain("announced", error)) from None

    @property
    def fd(self) -> int | None:
        """Readable when another host claims the address; only after it was announced."""
        return self._talk.fd if self._talk else None

    def rival(self) -> str:
        """The hardware address of another host that claims the address, or ""."""
        return self._talk.rival() if self._talk else ""

    def hush(self) -> None:
        """Neither receive nor send anything. Takes the kernel some 15 ms: nothing that is urgent waits for it."""
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.close()

    def trouble(self) -> str:
        """What would prevent adding the address, as far as can be found out beforehand, or ""."""
        if not self._there():
            return self._explain("put on", OSError(errno.ENODEV, os.strerror(errno.ENODEV)))
        has = _capabilities()
        missing = [
            name
            for name, number in (("CAP_NET_ADMIN", _NET_ADMIN), ("CAP_NET_RAW", _NET_RAW))
            if not has >> number & 1
        ]
        if missing:
            return (
                f"the virtual address {self} cannot be put on: the agent has no "
                f"{' and no '.join(missing)}: grant it to the agent (AmbientCapabilities= of its unit), or "
                "run it as root"
            )
        return ""

    def _there(self) -> int:
        """The interface's index; 0 when there is none."""
        try:
            return socket.if_nametoindex(self.interface)
        except OSError:
            return 0

    def _talking(self) -> Arp | Ndp:
        if self._talk is None:
            address = self.address
            if isinstance(address, IPv4Interface):
                self._talk = Arp(address.ip, self.interface)
            else:
                self._talk = Ndp(address.ip, self.interface)
        return self._talk

    def _explain(self, what: str, error: OSError) -> str:
        said = f"the virtual address {self} cannot be {what}: "
        if not self._there():
            known = ", ".join(name for _, name in socket.if_nameindex() if name != "lo")
            return (
                f"{said}this host has no interface {self.interface}"
                f" (it has {known or 'none'}): correct vip.interface in the agent's file"
            )
        match error.errno:
            case errno.EPERM | errno.EACCES if what != "announced" and self._v6_off():
                return f"{said}IPv6 is disabled on {self.interface}"
            case errno.EPERM | errno.EACCES:
                need = "CAP_NET_RAW" if what == "announced" else "CAP_NET_ADMIN"
                return f"{said}the agent has no {need}"
            case errno.ENETDOWN:
                return f"{said}{self.interface} is down"
            case _:
                return f"{said}{error.strerror or error} on {self.interface}"

    def _v6_off(self) -> bool:
        path = Path(f"/proc/sys/net/ipv6/conf/{self.interface}/disable_ipv6")
        try:
            return self.address.version == 6 and path.read_text().strip() == "1"
        except OSError:
            return False


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
