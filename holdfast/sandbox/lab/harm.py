"""All the faults that can be injected into a lab's hosts, and their removal."""

from __future__ import annotations

import fcntl
import json
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import BadInput, Refused
from holdfast.sandbox.lab import daemon
from holdfast.sandbox.lab.cells import Cells
from holdfast.sandbox.lab.crew import LabCrew
from holdfast.sandbox.lab.disks import Disks
from holdfast.sandbox.lab.links.faults import (
    Link,
    Pair,
    check_delay,
    check_share,
    read_links,
    ruleset,
    write_links,
)
from holdfast.sandbox.lab.links.network import Network
from holdfast.sandbox.lab.links.relay import Relay
from holdfast.sandbox.lab.plan import HAPROXY, LabPlan
from holdfast.sandbox.local.servers import server_of
from holdfast.server.process.process import Running

LOCK_SECONDS = 60.0


class LabHarm:
    """Every host has a name; ``"m1,m2"`` is a group, ``"all"`` is every host but those on the other side."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self._network = Network(plan)
        self._cells = Cells(plan, self._network)
        self._disks = Disks(plan)
        self._crew = LabCrew(plan, self._cells)
        self._relay = Relay(plan, self._network)

    # -- the network ------------------------------------------------------------------------------

    def cut(self, a: str, b: str, one_way: bool = False) -> None:
        """Drop every frame from a to b, and back unless ``one_way``."""
        self._change(a, b, one_way, cut=True)

    def loss(self, a: str, b: str, share: float, one_way: bool = False) -> None:
        """Drop frames by chance: ``share`` of 0 to 1. Replaces an earlier loss between them."""
        self._change(a, b, one_way, loss=check_share(share))

    def delay(
        self, a: str, b: str, ms: float, jitter_ms: float = 0.0, one_way: bool = False
    ) -> None:
        """Hold back what goes from a to b, and back, each way for ``ms`` and up to ``jitter_ms`` more."""
        check_delay(ms, jitter_ms)
        self._change(a, b, one_way, delay_ms=float(ms), jitter_ms=float(jitter_ms))

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo cuts, losses and delays between a and b, both ways; all of a's without b; all without a."""
        pairs = set(self._pairs(a or "all", b or "all", False))
        with self._locked():
            self._set_links({k: link for k, link in self.links().items() if k not in pairs})

    def links(self) -> dict[Pair, Link]:
        """The present faults of the network, one way each."""
        return read_links(self._links_path)

    # -- hosts that hang --------------------------------------------------------------------------

    def freeze(self, host: str) -> None:
        """All processes of the host stand still, from one moment on."""
        self._cells.freeze(self.plan.check_host(host))

    def thaw(self, host: str) -> None:
        self._cells.thaw(self.plan.check_host(host))

    def frozen(self, host: str) -> bool:
        return self._cells.frozen(self.plan.check_host(host))

    def freeze_server(self, member: str) -> None:
        """SIGSTOP to the server only.

        :raises Refused: it does not run
        """
        self._signal_server(member, signal.SIGSTOP)

    def thaw_server(self, member: str) -> None:
        """SIGCONT; nothing where it does not run."""
        if server_of(self.plan.member(member)) is not None:
            self._signal_server(member, signal.SIGCONT)

    # -- disks: each member has one, with its data, binary logs, error log and its agent's state ----

    def disk_full(self, host: str) -> None:
        """Leave no free space on the member's disk."""
        self._disks.fill(self._member(host))

    def disk_free(self, host: str) -> None:
        self._disks.free(self._member(host))

    def disk_stall(self, host: str) -> None:
        """Every write and fsync to the member's disk hangs in the kernel: not even SIGKILL ends a process that waits
        there.

        :raises Refused: it stalls already
        """
        name = self._member(host)
        with self._locked():
            self._write_stalled({*self.stalled(), name})
            self._disks.stall(name)

    def disk_go(self, host: str) -> None:
        name = self._member(host)
        with self._locked():
            self._disks.go(name)
            self._write_stalled(self.stalled() - {name})

    def disk_is_full(self, host: str) -> bool:
        return self._disks.full(self._member(host))

    def stalled(self) -> set[str]:
        """The hosts whose disks stall."""
        try:
            return set(json.loads(self._stalled_path.read_text()))
        except FileNotFoundError:
            return set()

    # -- processes that die: killing what does not run is Refused ------------------------------------

    def server(self, member: str) -> Running:
        """The process of a member's server. Finding it takes a while, signalling it does not.

        :raises Refused: it does not run
        """
        found = server_of(self.plan.member(member))
        if found is None:
            raise Refused(f"the server of {member} is not running")
        return found

    def kill_server(self, member: str) -> None:
        """SIGKILL; returns as soon as it is sent."""
        self._signal_server(member, signal.SIGKILL)

    def kill_agent(self, member: str) -> None:
        self._crew.kill(self._member(member))

    def hang_agent(self, member: str) -> None:
        """SIGSTOP to a member's agent only: its connections stay open, and it does nothing more.

        :raises Refused: it does not run
        """
        self._crew.signal(self._member(member), signal.SIGSTOP)

    def cont_agent(self, member: str) -> None:
        """SIGCONT; nothing where it does not run."""
        if self._crew.pid(self._member(member)) is not None:
            self._crew.signal(self._member(member), signal.SIGCONT)

    def start_agent(self, member: str) -> None:
        self._start(self._member(member))

    def kill_manager(self, manager: str) -> None:
        self._crew.kill(self._manager(manager))

    def stop_manager(self, manager: str) -> None:
        """SIGTERM: the manager may hand its leadership over. Returns when it has ended."""
        self._crew.stop(self._manager(manager))

    def start_manager(self, manager: str) -> None:
        self._start(self._manager(manager))

    def kill_etcd(self, node: str) -> None:
        self._crew.kill(self._etcd(node))

    def start_etcd(self, node: str) -> None:
        self._start(self._etcd(node))

    def kill_haproxy(self) -> None:
        self._crew.kill(self.plan.check_host(HAPROXY))

    def kill_host(self, host: str) -> None:
        """The host's power fails: it sends nothing more, and all of its processes are gone; its disk stays.

        :raises DeadlinePassed: a process hangs on a stalled disk; it ends when the disk works again
        """
        # first the cable: a kernel closes the connections of processes that die
        self._network.plug(self.plan.check_host(host), False)
        self._cells.kill(host)

    def cut_power(self, member: str) -> None:
        """As :meth:`kill_host`, and its disk keeps only what was flushed to it. It comes back with another boot id.

        :raises Refused: its disk stalls
        """
        name = self._member(member)
        if name in self.stalled():
            raise Refused(f"the disk of {name} stalls: let it go on first")
        self._network.plug(name, False)
        self._cells.freeze(name)
        self._disks.keep_flushed(name)
        self._cells.kill(name)
        self._disks.lose_unflushed(name)
        daemon.boot_anew(self.plan.own(name))

    def set_clock(self, host: str, ahead_seconds: float) -> None:
        """Step the wall clock of the host's own daemon: so far ahead of the machine's, or behind it."""
        daemon.set_clock(self.plan.own(self.plan.check_host(host)), ahead_seconds)

    def clock_ahead(self, host: str) -> float:
        """By how many seconds it is ahead."""
        return daemon.ahead(self.plan.own(self.plan.check_host(host)))

    def is_off(self, host: str) -> bool:
        """Whether it was killed, and not started since."""
        return not self._network.plugged(self.plan.check_host(host))

    def start_host(self, host: str) -> None:
        """Give it power again, and start its own daemon unless it runs."""
        self._network.plug(self.plan.check_host(host), True)
        if host in [member.name for member in self.plan.members]:
            self._disks.make(host)  # it was removed with the power
        if host in self._crew.hosts and self._crew.pid(host) is None:
            self._start(host)

    def forget_faults(self) -> None:
        """Record that no fault is in force: their hosts and links are gone."""
        self._links_path.unlink(missing_ok=True)
        self._stalled_path.unlink(missing_ok=True)

    # -- for all of these -------------------------------------------------------------------------

    def _change(self, a: str, b: str, one_way: bool, **values: Any) -> None:
        pairs = self._pairs(a, b, one_way)
        with self._locked():
            links = self.links()
            for pair in pairs:
                links[pair] = replace(links.get(pair, Link()), **values)
            self._set_links(links)

    def _pairs(self, a: str, b: str, one_way: bool) -> list[Pair]:
        """:raises BadInput: there is no such host, or none on one of the sides"""
        plan = self.plan
        found = [(s, t) for s in plan.group(a, b) for t in plan.group(b, a) if s != t]
        if not found:
            raise BadInput("host", f"there is nothing between {a} and {b}")
        return found if one_way else found + [(target, source) for source, target in found]

    def _set_links(self, links: dict[Pair, Link]) -> None:
        """Recorded first: what is in force is never more than what is recorded."""
        wrong = {pair: link for pair, link in links.items() if not link.sound}
        write_links(self._links_path, {**self.links(), **wrong})
        self._relay.set({pair: link for pair, link in wrong.items() if link.relayed})
        addresses = {host: self.plan.address(host) for host in self.plan.hosts}
        self._network.filter(ruleset(wrong, addresses))
        write_links(self._links_path, wrong)

    def _signal_server(self, member: str, number: signal.Signals) -> None:
        server = self.server(member)
        try:
            signal.pidfd_send_signal(server.fd, number)
        except ProcessLookupError:
            raise Refused(f"the server of {member} is not running") from None

    def _start(self, host: str) -> None:
        with self._locked():
            self._crew.start(host)

    def _member(self, host: str) -> str:
        return self.plan.member(host).name

    def _manager(self, host: str) -> str:
        return self.plan.check_host(host, self.plan.managers)

    def _etcd(self, host: str) -> str:
        return self.plan.check_host(host, self.plan.etcds)

    def _write_stalled(self, hosts: Iterable[str]) -> None:
        self._stalled_path.write_text(json.dumps(sorted(hosts)))

    @property
    def _links_path(self) -> Path:
        return self.plan.dir / "links.json"

    @property
    def _stalled_path(self) -> Path:
        return self.plan.dir / "stalled.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time changes records or starts daemons, in this process or another.

        :raises Refused: another is at work for too long
        """
        with (self.plan.dir / "lock").open("w") as lock:
            end = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Refused(
                            f"another command is at work on the lab in {self.plan.dir}"
                        ) from None
                    time.sleep(0.005)
            yield
