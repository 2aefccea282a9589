"""The same as ``arp.py`` for an IPv6 address: neighbour discovery (RFC 4861)."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import IPv6Address

from holdfast.endpoint.arp import hardware

_SOLICIT, _ADVERT = 135, 136
_OVERRIDE = 0x2000_0000
_ALL_NODES = "ff02::1"
_TARGET_HARDWARE = 2
_ICMP6_FILTER = 1
_HOPS = 255
"""Messages with another limit are not from this network, and are ignored."""


class Ndp:
    """:raises OSError: no such interface, or no permission (``CAP_NET_RAW``)"""

    def __init__(self, ip: IPv6Address, interface: str) -> None:
        self._ip = ip.packed
        self._index = socket.if_nametoindex(interface)
        self.hardware = hardware(interface)
        self._socket = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
        )
        try:
            option = self._socket.setsockopt
            option(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _only(_ADVERT))
            for hops in (socket.IPV6_MULTICAST_HOPS, socket.IPV6_UNICAST_HOPS):
                option(socket.IPPROTO_IPV6, hops, _HOPS)
            option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, self._index)
            option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            option(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        except OSError:
            self._socket.close()
            raise

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def announce(self) -> None:
        """Send an unsolicited advertisement."""
        option = struct.pack("!BB", _TARGET_HARDWARE, 1) + self.hardware
        body = struct.pack("!BBHI", _ADVERT, 0, 0, _OVERRIDE) + self._ip + option
        self._send(body, _ALL_NODES)

    def probe(self) -> None:
        """Sent from this host's own address: an unspecified one needs a socket of another kind."""
        group = b"\xff\x02" + b"\0" * 9 + b"\x01\xff" + self._ip[13:]
        body = struct.pack("!BBHI", _SOLICIT, 0, 0, 0) + self._ip
        body += struct.pack("!BB", 1, 1) + self.hardware
        self._send(body, str(IPv6Address(group)))

    def rival(self) -> str:
        found = ""
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                packet = self._socket.recv(512)
                target, option = packet[8:24], packet[24:32]
                if target == self._ip and option[:1] == b"\x02" and option[2:8] != self.hardware:
                    found = option[2:8].hex(":")
        return found

    def close(self) -> None:
        self._socket.close()

    def _send(self, body: bytes, to: str) -> None:
        """The kernel fills in the checksum."""
        self._socket.sendto(body, (to, 0, 0, self._index))


def _only(kind: int) -> bytes:
    """A set bit blocks a type."""
    words = [0xFFFF_FFFF] * 8
    words[kind >> 5] &= ~(1 << (kind & 31))
    return struct.pack("=8I", *words)
