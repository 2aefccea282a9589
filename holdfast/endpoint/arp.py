"""Announces which hardware has an IPv4 address now, and notices other hosts that announce it (RFC 826, RFC 5227)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
from ipaddress import IPv4Address

_ETH_ARP = 0x0806
_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6
_NOBODY = b"\0" * 6
_HEAD = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_SENDER_AT = 14 + 14
"""Offset of the sender's IP address in a frame."""
_SIOCGIFHWADDR = 0x8927
_SO_ATTACH_FILTER = 26


class Arp:
    """:raises OSError: no such interface, no permission (``CAP_NET_RAW``), or it is down"""

    def __init__(self, ip: IPv4Address, interface: str) -> None:
        self._ip = ip.packed
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            _only_from(self._socket, self._ip)
            self._socket.bind((interface, _ETH_ARP))
            self.hardware = hardware(interface)
        except OSError:
            self._socket.close()
            raise

    @property
    def fd(self) -> int:
        """Readable when another host claims the address."""
        return self._socket.fileno()

    def announce(self) -> None:
        """Hosts that know the address learn where it is now. Sent as a request and as a reply: some heed only one of
        them."""
        for operation, target in ((_REQUEST, _NOBODY), (_REPLY, self.hardware)):
            self._send(operation, self._ip, target)

    def probe(self) -> None:
        """Ask the host that has the address to answer; this changes nothing that hosts know."""
        self._send(_REQUEST, b"\0" * 4, _NOBODY)

    def rival(self) -> str:
        """The hardware address of another host that has claimed the address since the last call, or ""."""
        found = ""
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                frame = self._socket.recv(128)
                sender = frame[22:28]
                if len(frame) >= 42 and frame[28:32] == self._ip and sender != self.hardware:
                    found = sender.hex(":")
        return found

    def close(self) -> None:
        self._socket.close()

    def _send(self, operation: int, sender: bytes, target: bytes) -> None:
        frame = _BROADCAST + self.hardware + struct.pack("!H", _ETH_ARP) + _HEAD
        frame += struct.pack("!H", operation) + self.hardware + sender + target + self._ip
        self._socket.send(frame)


def hardware(interface: str) -> bytes:
    """:raises OSError: there is no such interface"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16s16x8x", interface.encode())
        return fcntl.ioctl(sock, _SIOCGIFHWADDR, request)[18:24]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _only_from(sock: socket.socket, ip: bytes) -> None:
    """Filter in the kernel: only frames whose sender has the address wake this process, not all ARP of the network."""
    instructions = (
        (0x20, 0, 0, _SENDER_AT),  # load that word
        (0x15, 0, 1, int.from_bytes(ip, "big")),  # is it the address?
        (0x06, 0, 0, 128),  # take the frame
        (0x06, 0, 0, 0),  # drop it
    )
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("=HBBI", *each) for each in instructions)
    )
    program = _Program(len(instructions), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
