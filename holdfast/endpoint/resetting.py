"""Ends the connections that clients have to an address of this host, while it is on: so they hear of it.

Once an address is off, nothing can be sent from it: whoever waits for an answer on a connection that was made by it
would wait until his own time-out. So the kernel is told to reset them before; it does so at once, whatever the server
is doing.

Formats: linux/sock_diag.h, linux/inet_diag.h. Needs ``CAP_NET_ADMIN``, and a kernel with ``CONFIG_INET_DIAG_DESTROY``
(Debian's and Red Hat's have it); without, nothing is reset.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from holdfast.endpoint import netlink

SECONDS = 0.02
"""Those that are not reset by then are left. Measured: 10 microseconds each."""
_SOCK_DIAG = 4
"""The protocol of netlink."""
_BY_FAMILY, _DESTROY = 20, 21
_BYTECODE, _SOURCE_IS, _ANY_PORT = 1, 7, -1
_STATES = sum(1 << state for state in (1, 3, 4, 5, 8, 9, 11, 12))
"""All with a peer who may wait: no listeners, and nothing that is over. Numbers: net/tcp_states.h."""
_ID = slice(4, 52)
"""What the kernel knows a connection by, in its answer."""
_AT_ONCE = 64


def reset(address: IPv4Address | IPv6Address, seconds: float = SECONDS) -> int:
    """Reset the TCP connections to that address; how many. What cannot be reset is left as it is."""
    end = time.monotonic() + seconds
    count = 0
    # a server that listens on "::" has its clients by IPv4 on sockets of IPv6
    families = [socket.AF_INET, socket.AF_INET6] if address.version == 4 else [socket.AF_INET6]
    with contextlib.suppress(OSError), netlink.opened(_SOCK_DIAG) as sock:
        for family in families:
            found = list(_connections(sock, family, address))
            while found and time.monotonic() < end:
                orders = [
                    netlink.message(_DESTROY, netlink.REQUEST, _asked(family, each))
                    for each in found[:_AT_ONCE]
                ]
                sock.send(b"".join(orders))  # done when this returns
                count += len(orders)
                del found[:_AT_ONCE]
    return count


def _connections(
    sock: socket.socket, family: int, address: IPv4Address | IPv6Address
) -> Iterator[bytes]:
    condition = struct.pack(
        "=BBxxi", socket.AF_INET if address.version == 4 else socket.AF_INET6,
        address.max_prefixlen, _ANY_PORT,
    ) + address.packed  # fmt: skip
    length = 4 + len(condition)
    # on to the next instruction, of which there is none, or beyond the end: taken, or not
    code = struct.pack("=BBH", _SOURCE_IS, length, length + 4) + condition
    body = _asked(family, bytes(48)) + netlink.attribute(_BYTECODE, code)
    sock.send(netlink.message(_BY_FAMILY, netlink.REQUEST | netlink.DUMP, body))
    for kind, payload in netlink.answers(sock):
        if kind == _BY_FAMILY:
            yield payload[_ID]


def _asked(family: int, identity: bytes) -> bytes:
    return struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _STATES) + identity
