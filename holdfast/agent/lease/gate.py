"""Closes a primary's ports in the kernel when its lease is over, in case its agent cannot kill it in time.

A host that was frozen and is thawed may run its server before its agent has looked at the clock; another primary may be
open by then. The gate closes without any process of this host doing anything. The end of the agent lifts it: a server
whose agent died continues to serve.

The unix socket is not gated: clients on the host are answered until the agent has killed the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from holdfast.agent.lease import nft
from holdfast.agent.lease.nft import Expired, Table
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.endpoint import sockdiag
from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.server.process.process import Running

RETRY_SECONDS = 1.0
"""A gate that could not be raised is tried again after this time."""
SELDOM_SECONDS = 60.0
"""The same where the gate has never worked, and is not required."""
_LISTENS = "0A"

logger = logging.getLogger(__name__)


class Gate:
    """A guard of the lease keeper's, with a thread of its own.

    While there is no gate a started nft process stands by: clients wait for a new primary, which waits for its gate.

    :param alarm: called with why there is no gate; with "" once there is one, or one is known to be possible
    :param insist: the gate is required: otherwise the gate is tested first
    """

    def __init__(
        self,
        command: Sequence[str],
        name: str,
        writer: BackgroundWriter,
        alarm: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
        ports: Callable[[int], Sequence[int]] = lambda pid: listening_ports(pid),
        insist: bool = True,
    ) -> None:
        self._insist = insist
        self._able = insist
        self._command = command
        self._name = name
        self._writer = writer
        self._alarm = alarm
        self._clock = clock
        self._ports = ports
        self._told = threading.Condition()
        self._running: Running | None = None
        self._until = 0.0
        self._shown = 0.0
        self._table: Table | None = None
        self._spare: subprocess.Popen[bytes] | None = None
        self._failed: str | None = None
        self._stopped = False
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Remove the gate; the server continues without one."""
        with self._told:
            self._stopped = True
            self._told.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def arm(self, running: Running, until: float) -> None:
        self._settled.clear()
        with self._told:
            self._running = running
            self._until = until
            self._told.notify()

    def extend(self, until: float) -> None:
        with self._told:
            self._until = max(self._until, until)
            self._told.notify()

    def lift(self) -> None:
        with self._told:
            self._running = None
            self._told.notify()

    def ready(self, seconds: float) -> None:
        """An opening waits only for a gate that is required."""
        if self._insist:
            self._clock.wait(self._settled, seconds)

    def _run(self) -> None:
        while True:
            if not self._able:
                self._try()
            self._stand_by()
            with self._told:
                retry = RETRY_SECONDS if self._failed else None
                if not self._able:
                    retry = SELDOM_SECONDS
                self._clock.wait_for(self._told, self._work, retry)
                running, until, stopped = self._running, self._until, self._stopped
            if stopped:
                self._lower()
                if spare := self._taken():
                    nft.end(spare)
                return
            if running is None or not self._able:
                self._lower()
                if self._able:
                    self._say("")
                continue
            try:
                self._show(running, until)
                self._say("")
            except Exception as error:  # without this thread the ports would stay closed for good
                self._lower()
                known = error if isinstance(error, HoldfastError) else repr(error)
                self._say(f"the gate that shuts its port when the lease is over is not up: {known}")
            self._shown = until
            self._settled.set()

    def _work(self) -> bool:
        """Whether there is something to do."""
        if self._stopped or self._running is None or not self._able:
            return self._stopped or self._table is not None
        if self._failed:
            return False
        if self._table is None:
            # once the lease is over no gate is raised: the server is being killed, which a disk that hangs may hold up
            return self._clock.boottime() < self._until
        return self._until > self._shown

    def _show(self, running: Running, until: float) -> None:
        if self._clock.boottime() >= until:
            return  # the server is being killed; closed ports stay closed
        if self._table is None:
            ports = self._ports(running.pid)
            if not ports:
                raise Refused(f"the server (pid {running.pid}) listens on no port")
            self._table = self._raised(ports, until)
            return
        try:
            self._table.renew(until)
        except Expired:
            # the lease may have been renewed since; what is read now is newer than the renewal that was late
            if self._clock.boottime() < self._until:
                self._table.reopen(self._until)

    def _raised(self, ports: Sequence[int], until: float) -> Table:
        spare = self._taken()
        try:
            return Table(self._command, self._name, ports, until, self._clock, spare)
        except Unreachable:
            if spare is None:
                raise
            return Table(self._command, self._name, ports, until, self._clock)

    def _try(self) -> None:
        try:
            nft.probe(self._command, f"{self._name}_probe", self._clock)
        except HoldfastError as error:
            self._say(f"there is no gate that shuts its port when the lease is over: {error}")
        else:
            self._able = True
            self._say("")

    def _stand_by(self) -> None:
        if not self._able:
            return
        if self._table is None and self._spare is None and not self._stopped:
            with contextlib.suppress(Refused):  # reported when a gate is needed
                self._spare = nft.start(self._command)

    def _taken(self) -> subprocess.Popen[bytes] | None:
        """The nft process that stands by, if it lives."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.poll() is not None:
            nft.end(spare)
            return None
        return spare

    def _lower(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    def _say(self, failed: str) -> None:
        if failed == self._failed:
            return
        self._failed = failed
        self._alarm(failed)
        if failed:
            level = logging.WARNING if self._able else logging.DEBUG
            self._writer.say(logger, failed, level)


def listening_ports(pid: int) -> list[int]:
    """The TCP ports on which the process takes connections."""
    return sorted({port for _, port in _listening(pid)})


def listens_at(pid: int, ip: str) -> bool:
    """Whether the process takes connections to that address of this host."""
    wanted = ip_address(ip)
    for found, _ in _listening(pid):
        # "::" stands for both versions, unless the server has set it otherwise
        if found == wanted or (found.is_unspecified and found.version >= wanted.version):
            return True
    return False


def _listening(pid: int) -> Iterator[tuple[IPv4Address | IPv6Address, int]]:
    """Addresses and TCP ports."""
    sockets = set(_sockets(pid))
    if _here(pid):
        with contextlib.suppress(OSError):
            found = list(sockdiag.listeners())
            yield from ((address, port) for address, port, inode in found if str(inode) in sockets)
            return
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == _LISTENS and words[9] in sockets:
                address, _, port = words[1].rpartition(":")
                yield _address(address), int(port, 16)


def _here(pid: int) -> bool:
    """Whether the process is in the network namespace of this thread."""
    try:
        own = Path("/proc/thread-self/ns/net").stat().st_ino
        return own == Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return False


def _address(text: str) -> IPv4Address | IPv6Address:
    """Parse an address as the kernel shows it: words of 32 bits, each in the byte order of this machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _sockets(pid: int) -> Iterator[str]:
    """Inodes of the sockets that the process has open."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                try:
                    kind, _, inode = os.readlink(entry.path).partition(":")
                except OSError:
                    continue
                if kind == "socket":
                    yield inode.strip("[]")
    except OSError:
        return
