"""Adds an address to an interface, with a lifetime after which the kernel removes it by itself, and removes it.

This module speaks to the kernel directly: a netlink message takes some 50 microseconds. (pyroute2, measured on a loaded
host: 2 to 16 ms each, and 2 s to be imported, for which the process that holds an address cannot wait.)

Formats: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

NEWADDR, DELADDR, GETADDR = 20, 21, 22
_ERROR, _DONE = 2, 3
REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_ADDRESS, _LOCAL, _CACHEINFO, _FLAGS = 1, 2, 6, 8
_NODAD = 0x02
"""IPv6: usable at once. The kernel's own detection of duplicates would take a second."""
_UNIVERSE = 0
_ANSWER_SECONDS = 1.0

Interface = IPv4Interface | IPv6Interface


def put(address: Interface, index: int, seconds: int) -> bool:
    """Have the address on for so many seconds from now (whole ones: the kernel counts no others).

    Measured: the kernel removes it 0.01 to 0.35 s after them. It is deprecated from the beginning: the kernel never
    chooses it for this host's own connections.

    :returns: whether it was not on before
    :raises OSError: the kernel refuses
    """
    lifetimes = struct.pack("=IIII", 0, seconds, 0, 0)
    more = attribute(_CACHEINFO, lifetimes) + attribute(_FLAGS, struct.pack("=I", _NODAD))
    try:
        _change(NEWADDR, _CREATE | _EXCLUSIVE, address, index, more)
    except FileExistsError:
        _change(NEWADDR, _CREATE | _REPLACE, address, index, more)
        return False
    return True


def remove(address: Interface, index: int) -> bool:
    """Remove the address; returns whether it was on.

    :raises OSError: the kernel refuses
    """
    try:
        _change(DELADDR, 0, address, index, b"")
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
            return False
        raise
    return True


def where(address: Interface) -> list[tuple[Interface, int]]:
    """The interfaces that carry the address, by index, with its prefix there."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    found: list[tuple[Interface, int]] = []
    body = struct.pack("=BBBBI", family, 0, 0, 0, 0)
    with opened() as sock:
        sock.send(message(GETADDR, REQUEST | DUMP, body))
        for kind, payload in answers(sock):
            _, prefix, _, _, index = struct.unpack_from("=BBBBI", payload)
            own = dict(_attributes(payload[8:]))
            if kind == NEWADDR and (own.get(_LOCAL) or own.get(_ADDRESS)) == address.ip.packed:
                found.append((ip_interface(f"{address.ip}/{prefix}"), index))
    return found


def _change(kind: int, flags: int, address: Interface, index: int, more: bytes) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = address.ip.packed
    body = struct.pack("=BBBBI", family, address.network.prefixlen, 0, _UNIVERSE, index)
    body += attribute(_LOCAL, packed) + attribute(_ADDRESS, packed) + more
    with opened() as sock:
        sock.send(message(kind, REQUEST | _ACK | flags, body))
        for _ in answers(sock):
            pass


def opened(protocol: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.settimeout(_ANSWER_SECONDS)
    return sock


def message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]


def answers(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """All messages up to the last one of the answer.

    :raises OSError: the answer is an error, with its number
    """
    while True:
        data = sock.recv(65536)
        while data:
            length, kind = struct.unpack_from("=IH", data)
            payload, data = data[16:length], data[(length + 3) & ~3 :]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                if number:
                    raise OSError(number, os.strerror(number))
                return
            yield kind, payload
