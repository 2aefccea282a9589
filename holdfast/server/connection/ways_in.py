"""Other ways to a local server whose socket file was removed: it still listens there, but cannot be found by that path.

The kernel knows by which path a process listens, whether the file exists or not, and where else that process listens.
So the agent needs no further configuration, and mistakes no other process for its server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_ACCEPTS = 0x10000
"""In ``/proc/net/unix``: it listens (``__SO_ACCEPTCON``)."""
_LISTENS = "0A"
"""In ``/proc/net/tcp``: TCP_LISTEN."""
_LOOPBACK = {
    "0100007F": "127.0.0.1",
    "00000000": "127.0.0.1",
    "00000000000000000000000001000000": "::1",
    "00000000000000000000000000000000": "127.0.0.1",
    "0000000000000000FFFF00000100007F": "127.0.0.1",
}
"""The address at which a socket that is bound to the first is reached, in the notation of a little-endian kernel."""


def listens(path: Path) -> bool:
    """Whether a process of this host listens at that socket, whether its file exists or not."""
    return _inode(path) is not None


def loopback(path: Path) -> list[tuple[str, int]]:
    """Where the process that listens at that socket accepts TCP connections from its own host; [] if it does not, or if
    it cannot be known which process that is (another user's)."""
    inode = _inode(path)
    pid = _owner(inode) if inode is not None else None
    if pid is None:
        return []
    sockets = set(_sockets(pid))
    found = set()
    for table in ("tcp", "tcp6"):
        for words in _table(f"/proc/{pid}/net/{table}"):
            address, _, port = words[1].rpartition(":")
            if words[3] == _LISTENS and words[9] in sockets and address in _LOOPBACK:
                found.add((int(port, 16), _LOOPBACK[address]))
    return [(host, port) for port, host in sorted(found)]


def _inode(path: Path) -> str | None:
    for words in _table("/proc/thread-self/net/unix"):
        if len(words) > 7 and int(words[3], 16) & _ACCEPTS and " ".join(words[7:]) == str(path):
            return words[6]
    return None


def _owner(inode: str) -> int | None:
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and inode in _sockets(int(entry)):
            return int(entry)
    return None


def _sockets(pid: int) -> Iterator[str]:
    """Inodes of the sockets that the process has open."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                kind, _, inode = os.readlink(entry.path).partition(":")
                if kind == "socket":
                    yield inode.strip("[]")


def _table(path: str) -> Iterator[list[str]]:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines()[1:]:
            yield line.split()
