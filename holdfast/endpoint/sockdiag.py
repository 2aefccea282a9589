"""The TCP sockets of this host, by the kernel: which process listens where; and resets connections.

``/proc/net/tcp`` has the same, but takes 5 to 20 ms where the kernel's table of connections is large (measured), and
cannot reset.

Formats: linux/sock_diag.h, linux/inet_diag.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from holdfast.endpoint import netlink

RESET_SECONDS = 0.01
"""Connections that are not reset by then are left. Measured: 10 microseconds each."""
_SOCK_DIAG = 4
"""The protocol of netlink."""
_BY_FAMILY, _DESTROY = 20, 21
_BYTECODE, _SOURCE_IS, _ANY_PORT = 1, 7, -1
_LISTENING = 1 << 10
_WITH_PEER = sum(1 << state for state in (1, 3, 4, 5, 8, 9, 11, 12))
"""All states with a peer that may wait: no listeners, and nothing that is over. Numbers: net/tcp_states.h."""
_ID, _ID_BYTES = slice(4, 52), 48
"""The part of the kernel's answer that identifies a socket."""
_SOURCE_AT, _INODE_AT = 8, 68
_AT_ONCE = 64


def listeners() -> Iterator[tuple[IPv4Address | IPv6Address, int, int]]:
    """Address, port and inode of each socket that takes connections.

    :raises OSError: the kernel refuses
    """
    with netlink.opened(_SOCK_DIAG) as sock:
        for family in (socket.AF_INET, socket.AF_INET6):
            length = 4 if family == socket.AF_INET else 16
            body = _asked(family, _LISTENING, bytes(_ID_BYTES))
            for found in _answers(sock, body):
                where = ip_address(found[_SOURCE_AT : _SOURCE_AT + length])
                (port,) = struct.unpack_from("!H", found, _ID.start)
                (inode,) = struct.unpack_from("=I", found, _INODE_AT)
                yield where, port, inode


def reset(address: IPv4Address | IPv6Address, seconds: float = RESET_SECONDS) -> int:
    """Reset the connections to that address of this host; returns how many. What cannot be reset is left as it is.

    Once an address is removed, nothing can be sent from it: a client that waits for an answer on a connection to it
    would wait until its own time-out. A reset is sent at once, whatever the server is doing.

    Needs ``CAP_NET_ADMIN``, and a kernel with ``CONFIG_INET_DIAG_DESTROY`` (Debian's and Red Hat's have it).
    """
    end = time.monotonic() + seconds
    count = 0
    # a server that listens on "::" has its IPv4 clients on IPv6 sockets
    families = [socket.AF_INET, socket.AF_INET6] if address.version == 4 else [socket.AF_INET6]
    with contextlib.suppress(OSError), netlink.opened(_SOCK_DIAG) as sock:
        for family in families:
            body = _asked(family, _WITH_PEER, bytes(_ID_BYTES)) + _at(address)
            found = [each[_ID] for each in _answers(sock, body)]
            while found and time.monotonic() < end:
                orders = [
                    netlink.message(_DESTROY, netlink.REQUEST, _asked(family, _WITH_PEER, each))
                    for each in found[:_AT_ONCE]
                ]
                sock.send(b"".join(orders))  # done when this returns
                count += len(orders)
                del found[:_AT_ONCE]
    return count


def _answers(sock: socket.socket, body: bytes) -> Iterator[bytes]:
    sock.send(netlink.message(_BY_FAMILY, netlink.REQUEST | netlink.DUMP, body))
    return (payload for kind, payload in netlink.answers(sock) if kind == _BY_FAMILY)


def _asked(family: int, states: int, identity: bytes) -> bytes:
    return struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, states) + identity


def _at(address: IPv4Address | IPv6Address) -> bytes:
    """A filter for the connections to that address of this host."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    condition = struct.pack("=BBxxi", family, address.max_prefixlen, _ANY_PORT) + address.packed
    length = 4 + len(condition)
    # jump to the next instruction, of which there is none (accepted), or beyond the end (rejected)
    code = struct.pack("=BBH", _SOURCE_IS, length, length + 4) + condition
    return netlink.attribute(_BYTECODE, code)
