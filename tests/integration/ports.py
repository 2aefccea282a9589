"""Ports of servers that tests start: reserved against other runs, and against the other processes of this one."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from holdfast.sandbox.local import spec

PORTS = range(18000, 19000)
"""Neither those of sandboxes nor those of outgoing connections, which would take them while a server is down."""

_kept = ExitStack()


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports on which nothing listens."""
    folder = Path(tempfile.gettempdir()) / "holdfast-ports"
    folder.mkdir(exist_ok=True)
    found: list[int] = []
    with ExitStack() as locks:
        start = 20 * os.getpid() % len(PORTS)
        for port in (*PORTS[start:], *PORTS[:start]):
            if len(found) == count:
                break
            lock = locks.enter_context((folder / str(port)).open("w"))
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.create_server(("127.0.0.1", port)):
                    found.append(port)
        assert len(found) == count, f"fewer than {count} ports of {PORTS} are free"
        yield found


def keep_ports(count: int) -> list[int]:
    """Free ports, until this process ends."""
    return _kept.enter_context(free_ports(count))


def free_base_port() -> int:
    """For a sandbox; processes of one run choose from different ones, as its servers may be down for a while."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = spec.FREE_PORTS[worker::workers]
    return spec.free_base_port(random.sample(own, len(own)))
