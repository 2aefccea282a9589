"""The lab's own daemons, one on a host: agents, managers, etcd nodes. They are found by their command lines.

Nothing is stored about them, so a command that was killed leaves no daemon that the next command does not find.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import DeadlinePassed, Refused
from holdfast.sandbox.lab.cells import Cells
from holdfast.sandbox.lab.plan import ETCD_PEER_PORT, ETCD_PORT, HAPROXY, LabPlan
from holdfast.sandbox.servers import trees
from holdfast.sandbox.servers.daemons import ended, tail

START_SECONDS = 5.0
TERM_SECONDS = 8.0
KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class HostJob:
    """:ivar mark: the argument that no other process has"""

    argv: tuple[str, ...]
    mark: str
    log: Path


class LabCrew:
    def __init__(self, plan: LabPlan, cells: Cells) -> None:
        self._plan = plan
        self._cells = cells
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts that run a daemon, in the order in which they are started."""
        plan = self._plan
        proxy = (HAPROXY,) if plan.haproxy else ()
        return (*plan.etcds, *plan.managers, *proxy, *(member.name for member in plan.members))

    def pid(self, host: str) -> int | None:
        """The host's daemon, if it runs."""
        self.bury()
        mark = os.fsencode(self._job(host).mark)
        found = [pid for pid in self._cells.pids(host) if mark in _arguments(pid)]
        # a child that has not run its own program yet looks like its parent
        own = [pid for pid in found if _parent(pid) not in found]
        return own[0] if own else None

    def start(self, host: str) -> None:
        """Start it; returns once it is on the host, where it can be frozen and killed.

        :raises Refused: it runs
        """
        if self.pid(host) is not None:
            raise Refused(f"the daemon of {host} is running")
        job = self._job(host)
        with job.log.open("ab") as output:
            child = subprocess.Popen(
                self._cells.command(host, job.argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._plan.dir,
                start_new_session=True,
            )
        self._children[child.pid] = child
        end = time.monotonic() + START_SECONDS
        while self.pid(host) is None and child.pid in self._children and time.monotonic() < end:
            time.sleep(0.002)

    def kill(self, host: str) -> None:
        """:raises Refused: it does not run"""
        with self._held(host) as fd:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            if not ended(fd, KILL_SECONDS):
                raise DeadlinePassed(f"killing the daemon of {host}", KILL_SECONDS)
        self.bury()

    def signal(self, host: str, number: signal.Signals) -> None:
        """:raises Refused: it does not run"""
        with self._held(host) as fd:
            signal.pidfd_send_signal(fd, number)

    def stop(self, host: str, seconds: float = TERM_SECONDS) -> None:
        """SIGTERM, and SIGKILL if it has not ended in time.

        :raises Refused: it does not run
        """
        with self._held(host) as fd:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            over = ended(fd, seconds)
        if not over:
            self.kill(host)
        self.bury()

    def refuse_if_ended(self) -> None:
        """:raises Refused: one that this process has started ended by itself; holds the end of its log"""
        for host in self.hosts:
            if self.pid(host) is None:
                log = self._plan.log(host)
                raise Refused(f"the daemon of {host} ended; the end of {log}:\n{tail(log)}")

    def _job(self, host: str) -> HostJob:
        plan = self._plan
        log = plan.log(plan.check_host(host, self.hosts))
        if host in plan.etcds:
            data = plan.etcd_data(host)
            return HostJob(_etcd(plan, host), f"--data-dir={data}", log)
        if host == HAPROXY:
            own = str(plan.haproxy_config)
            return HostJob((*trees.companion("haproxy"), "-db", "-f", own), own, log)
        managing = host in plan.managers
        config = plan.manager_config(host) if managing else plan.member(host).agent_config
        kind = "manager" if managing else "agent"
        run = (sys.executable, "-m", "holdfast.sandbox.lab.daemon", str(plan.own(host)))
        argv = (*run, kind, "--config", str(config))
        return HostJob(argv, str(config), log)

    @contextmanager
    def _held(self, host: str) -> Iterator[int]:
        """A pidfd of the daemon."""
        pid = self.pid(host)
        fd = -1
        with suppress(ProcessLookupError):
            fd = os.pidfd_open(pid) if pid is not None else -1
        # checked again with the pidfd at hand: its process cannot change now
        if fd < 0 or self.pid(host) != pid:
            if fd >= 0:
                os.close(fd)
            raise Refused(f"the daemon of {host} is not running")
        try:
            yield fd
        except ProcessLookupError:
            raise Refused(f"the daemon of {host} is not running") from None
        finally:
            os.close(fd)

    def bury(self) -> None:
        """Reap the processes that have ended."""
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                self._children.pop(pid, None)


def _etcd(plan: LabPlan, node: str) -> tuple[str, ...]:
    """The command of an etcd node. Its times are etcd's own defaults (heartbeat 100 ms, election 1 s), which leases of
    2 s need."""
    client = f"http://{plan.address(node)}:{ETCD_PORT}"
    peers = {name: f"http://{plan.address(name)}:{ETCD_PEER_PORT}" for name in plan.etcds}
    return (
        *trees.companion("etcd"),
        f"--name={node}",
        f"--data-dir={plan.etcd_data(node)}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers[node]}",
        f"--initial-advertise-peer-urls={peers[node]}",
        f"--initial-cluster={','.join(f'{name}={url}' for name, url in peers.items())}",
        f"--initial-cluster-token={plan.id}",
        "--initial-cluster-state=new",
    )


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]
        )
    except (OSError, IndexError):
        return 0
