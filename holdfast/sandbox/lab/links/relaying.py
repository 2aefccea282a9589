"""The relay's program: it receives the frames that the bridge's rules send to it, and passes them on later.

    python -m holdfast.sandbox.lab.links.relaying SOCKET

It runs beside the bridge, makes the device that the rules name, and reads the delays from SOCKET: a JSON list of
``[from, to, ms, jitter_ms]``, hosts by the last number of their hardware address. It answers ``ok``.

Frames of one direction stay in order; the clock's resolution adds up to a millisecond. Without the relay those frames
are lost. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import sys
import time
from contextlib import suppress

DEVICE = "relay"
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_LARGEST_FRAME = 65536
_AT_ONCE = 64
"""Frames that are read before those that are due are sent."""
_MOST_HELD = 50_000
"""Frames; more are dropped, as in a router whose queue is full."""


class Relaying:
    """:ivar late: seconds and seconds of jitter, by the last numbers of both hardware addresses"""

    def __init__(self, path: str) -> None:
        self._tap = _make_device()
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._control.bind(path)
        self._control.listen(4)
        self.late: dict[tuple[int, int], tuple[float, float]] = {}
        self._ports: dict[int, socket.socket] = {}
        self._held: list[tuple[float, int, int, bytes]] = []
        self._last: dict[tuple[int, int], float] = {}
        self._count = 0

    def run(self) -> None:
        poll = select.epoll()
        poll.register(self._tap, select.EPOLLIN)
        poll.register(self._control, select.EPOLLIN)
        while True:
            wait = self._held[0][0] - time.monotonic() if self._held else -1
            for fd, _ in poll.poll(max(0.0, wait) if self._held else None):
                if fd == self._tap:
                    self._take()
                else:
                    self._listen()
            self._let_go()

    def _take(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                frame = os.read(self._tap, _LARGEST_FRAME)
                pair = (frame[11], frame[5])
                late = self.late.get(pair, (0.0, 0.0))
                due = time.monotonic() + late[0] + random.random() * late[1]
                due = self._last[pair] = max(due, self._last.get(pair, 0.0))
                self._count += 1
                if len(self._held) < _MOST_HELD:
                    heapq.heappush(self._held, (due, self._count, pair[1], frame))

    def _let_go(self) -> None:
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            _, _, number, frame = heapq.heappop(self._held)
            port = self._ports.get(number)
            if port is not None:
                with suppress(
                    OSError
                ):  # that host's port is down, or its queue is full: the frame is lost
                    port.send(frame)

    def _listen(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            connection.settimeout(1)
            with suppress(OSError, ValueError):
                told = json.loads(connection.recv(1 << 20))
                for number, name in told["ports"]:
                    if number not in self._ports:
                        self._ports[number] = _port(name)
                self.late = {
                    (source, target): (ms / 1000, jitter / 1000)
                    for source, target, ms, jitter in told["late"]
                }
                connection.send(b"ok")


def _make_device() -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TAP | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", DEVICE.encode(), 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        up = struct.pack("16sH14x", DEVICE.encode(), flags | _IFF_UP)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, up)
    return tap


def _port(name: str) -> socket.socket:
    """Sends through one of the bridge's ports, to the host behind it; receives nothing."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.bind((name, 0))
    port.setblocking(False)
    return port


if __name__ == "__main__":
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    Relaying(sys.argv[1]).run()
