"""Hang up connections, so that threads of a server which wait for the other end react at once.

A receiver that is being stopped reacts only when its source has answered, or when its time-out (a whole second at
least) is over: while it connects, on both servers, and on MariaDB also at its end, when it connects once more to have
its session on the source killed. No SQL statement wakes it, not even KILL. So its sockets are shut down from outside:
to the server that is a lost connection.

MySQL's thread that receives acknowledgements reacts once a second, or when one of its replicas sends something. Until
then it blocks a session that switches the source side off, and every session that reads a global variable or logs in
meanwhile. If the connection of a replica that it already served is shut down, the thread ends within 10 ms (measured;
without such a replica it takes its second).

This needs the rights of a debugger (``pidfd_getfd(2)``): to be root, or the server's parent and user. Without them each
takes its second.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.clock import Clock

PIDFD_GETFD = 438
"""The number of the system call, on every architecture."""

BEGIN_SECONDS = 0.02
"""A receiver whose source answers has stopped within this time."""
AGAIN_SECONDS = 0.01

Addressed = ipaddress.IPv4Address | ipaddress.IPv6Address

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ToSource:
    """The connections that a server has opened to its source. A host name is not resolved, which could take long: then
    only the port counts.

    :ivar own_port: of the server: connections made to it are left alone
    """

    host: str
    port: int
    own_port: int

    def has(self, here: int, there: Addressed, port: int) -> bool:
        wanted = _address(self.host)
        return port == self.port and here != self.own_port and wanted in (None, there)


@dataclass(frozen=True, slots=True)
class FromReplicas:
    """The connections that replicas have opened to a server, whatever their hosts are called.

    :ivar ports: at their ends
    """

    own_port: int
    ports: frozenset[int]

    def has(self, here: int, there: Addressed, port: int) -> bool:
        return here == self.own_port and port in self.ports


Which = ToSource | FromReplicas


@contextlib.contextmanager
def hanging_up(pid: Callable[[], int], which: Which, clock: Clock) -> Iterator[None]:
    """While the body runs, after a first moment: these connections of the process are shut down.

    :param pid: of the server, or 0
    """
    done = threading.Event()

    def work() -> None:
        if clock.wait(done, BEGIN_SECONDS):
            return
        process = pid()
        while process and hang_up(process, which) is not None:
            if clock.wait(done, AGAIN_SECONDS):
                return

    helper = threading.Thread(target=work, name="hang up", daemon=True)
    helper.start()
    try:
        yield
    finally:
        done.set()
        helper.join()


def hang_up(pid: int, which: Which) -> int | None:
    """Shut down these TCP connections of a process; how many.

    :returns: None if that is not permitted, or if there is no such process
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    count = 0
    try:
        inodes = set(_connections(pid, which))
        for fd in _sockets(pid, inodes) if inodes else ():
            own = _libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
            if own < 0:
                return None
            with socket.socket(fileno=own) as taken, contextlib.suppress(OSError):
                # the number may belong to another socket by now
                if os.fstat(own).st_ino in inodes:
                    taken.shutdown(socket.SHUT_RDWR)
                    count += 1
    except OSError:
        return None
    finally:
        os.close(pidfd)
    return count


def peer(made: socket.socket) -> int:
    """The process that listens at the other end of a local socket; 0 if it is not visible to us."""
    pid, _, _ = struct.unpack(
        "3i", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(pid)


def _connections(pid: int, which: Which) -> Iterator[int]:
    """Inodes of such connections in the process's network namespace; see proc(5), ``/proc/net/tcp``."""
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            here = fields[1].rpartition(":")[2]
            there, _, port = fields[2].rpartition(":")
            if which.has(int(here, 16), _decoded(there), int(port, 16)):
                yield int(fields[9])


def _sockets(pid: int, inodes: set[int]) -> Iterator[int]:
    names = {f"socket:[{inode}]" for inode in inodes}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{entry}") in names:
                yield int(entry)


def _address(host: str) -> Addressed | None:
    with contextlib.suppress(ValueError):
        return _plain(ipaddress.ip_address(host))
    return None


def _decoded(text: str) -> Addressed:
    """The kernel writes 32-bit words in the byte order of the machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return _plain(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def _plain(address: Addressed) -> Addressed:
    return getattr(address, "ipv4_mapped", None) or address
