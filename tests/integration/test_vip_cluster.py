"""The virtual address of a real cluster, as clients and the network see it: one host at a time answers for it.

And HAProxy on a host of its own, in front of hosts that vanish.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.endpoint.arp import Arp
from holdfast.endpoint.netlink import where
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.links.network import hardware_address
from holdfast.sandbox.lab.plan import PREFIX_BITS, SERVER_PORT, LabShape
from holdfast.sandbox.local.spec import CLUSTER

SECONDS = 60.0
MOVED_SECONDS = 5.0
"""Half a second is usual on a machine that does nothing else, a client's time until it tries again included."""
KERNEL_SECONDS = 2.5
"""More than the longest lifetime that the kernel gets while an agent is away, and the time to notice it."""


@pytest.fixture(scope="module")
def lab(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("vip") / "lab"
    made = Lab.create(folder, LabShape(flavor, managers=1, vip=True, haproxy=True))
    try:
        made.up()
        yield made
    finally:
        made.down(remove=True)


class Watch:
    """Observations of the address, in turns.

    :ivar answered: the servers that answered clients, in the order of their answers, each once in a row
    :ivar heard: the hosts that answered ARP, the same way
    :ivar held: for each look at a host, in order: the host, and whether the address is on there
    """

    def __init__(self, lab: Lab) -> None:
        self.answered: list[str] = []
        self.heard: list[str] = []
        self.held: list[tuple[str, bool]] = []
        self._lab = lab
        self._stopped = threading.Event()
        work = (self._connect, self._resolve, self._look)
        self._threads = [threading.Thread(target=each) for each in work]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._stopped.set()
        for each in self._threads:
            each.join()

    def until_answered(self, by_another_than: str) -> str:
        end = time.monotonic() + SECONDS
        while not self.answered or self.answered[-1] == by_another_than:
            assert time.monotonic() < end, f"only {self.answered} have answered"
            time.sleep(0.02)
        return self.answered[-1]

    @property
    def both(self) -> list[tuple[str, str]]:
        """Hosts that certainly had it at the same time: one of them before and after a look at the other."""
        last: dict[str, int] = {}
        found = []
        for number, (host, on) in enumerate(self.held):
            before = last.get(host)
            if on and before is not None and self.held[before][1]:
                between = self.held[before + 1 : number]
                found += [(host, other) for other, had in between if had]
            last[host] = number
        return found

    def _connect(self) -> None:
        lab, app = self._lab, self._lab.accounts.app
        with lab.inside("client"):
            while not self._stopped.wait(0.02):
                try:
                    with pymysql.connect(
                        host=lab.plan.vip_address,
                        port=SERVER_PORT,
                        user=app.user,
                        password=app.password,
                        connect_timeout=1,
                        read_timeout=1,
                        write_timeout=1,  # and that of TLS
                    ) as session:
                        cursor = session.cursor()
                        cursor.execute("SELECT @@server_id")
                        ((number,),) = cursor.fetchall()
                except (pymysql.Error, OSError):
                    continue
                _note(self.answered, f"m{number}")

    def _resolve(self) -> None:
        lab = self._lab
        known = {hardware_address(each.host): each.name for each in lab.members()}
        with lab.inside("client"):
            arp = Arp(IPv4Address(lab.plan.vip_address), "eth0")
        try:
            while not self._stopped.wait(0.01):
                arp.probe()
                for rival in iter(arp.rival, ""):
                    _note(self.heard, known[rival])
        finally:
            arp.close()

    def _look(self) -> None:
        lab = self._lab
        address = ip_interface(f"{lab.plan.vip_address}/{PREFIX_BITS}")
        while not self._stopped.wait(0.005):
            for member in lab.members():
                with lab.inside(member.name):
                    self.held.append((member.name, bool(where(address))))


class Writer:
    """A client that writes, and comes back when its connection is lost.

    :param to: host and port
    :ivar errors: the errors that it got
    :ivar longest: seconds without an acknowledged write, at most
    """

    def __init__(self, lab: Lab, to: tuple[str, int]) -> None:
        self._to = to
        self.errors: list[str] = []
        self.longest = 0.0
        self.acknowledged = 0
        self._lab = lab
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        self.go_on()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def go_on(self) -> None:
        """Wait for more of its writes."""
        wanted, end = self.acknowledged + 3, time.monotonic() + SECONDS
        while self.acknowledged < wanted:
            assert time.monotonic() < end, self.errors
            time.sleep(0.01)

    def rows(self) -> int:
        with self._session() as session, session.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM app.written")
            return int(cursor.fetchone()[0])

    def _session(self) -> pymysql.Connection[Any]:
        lab, app = self._lab, self._lab.accounts.app
        host, port = self._to
        with lab.inside("client"):
            return pymysql.connect(
                host=host,
                port=port,
                user=app.user,
                password=app.password,
                autocommit=True,
                connect_timeout=20,
                read_timeout=20,
                write_timeout=20,
            )

    def _run(self) -> None:
        with self._session() as session, session.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS app.written")
            cursor.execute("CREATE TABLE app.written (n INT PRIMARY KEY)")
        last = time.monotonic()
        while not self._stopped.is_set():
            try:
                with self._session() as session, session.cursor() as cursor:
                    while not self._stopped.wait(0.005):
                        cursor.execute(
                            f"INSERT IGNORE INTO app.written VALUES ({self.acknowledged})"
                        )
                        self.acknowledged += 1
                        now = time.monotonic()
                        self.longest, last = max(self.longest, now - last), now
            except (pymysql.Error, OSError) as error:
                self.errors.append(str(error))
                self._stopped.wait(0.02)


def by_the_address(lab: Lab) -> Writer:
    return Writer(lab, (lab.plan.vip_address, SERVER_PORT))


def through_haproxy(lab: Lab) -> Writer:
    found = lab.endpoint()
    assert found is not None
    return Writer(lab, found)


def _note(list_: list[str], name: str) -> None:
    if list_[-1:] != [name]:
        list_.append(name)


def processor_seconds(lab: Lab, host: str) -> dict[str, float]:
    """The processor time so far of those processes of an agent that may have a real-time priority."""
    found = {}
    for pid in lab._cells.pids(host):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        for module in ("holdfast.agent.vip.process", "holdfast.agent.lease.keeper_process"):
            if module.encode() in words:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                found[module] = ticks / os.sysconf("SC_CLK_TCK")
    assert len(found) == 2
    return found


@contextmanager
def watched(lab: Lab) -> Iterator[tuple[Watch, str]]:
    """With the primary. In any case one host at a time has the address; the cluster is whole at the end."""
    lab.wait_whole(SECONDS)
    primary = lab.primary()
    watch = Watch(lab)
    watch.start()
    try:
        watch.until_answered("")
        yield watch, primary
        lab.wait_whole(SECONDS)
    finally:
        watch.stop()
    assert watch.both == []
    # each once: a host that has lost the address never answers again
    assert watch.answered == list(dict.fromkeys(watch.answered))
    assert watch.heard == list(dict.fromkeys(watch.heard))
    assert watch.heard == watch.answered


def test_it_moves_when_the_primary_is_killed(lab: Lab) -> None:
    with watched(lab) as (watch, primary):
        lab.kill_server(primary)
        heir = watch.until_answered(primary)
    assert watch.answered == [primary, heir]


def test_it_moves_with_a_switchover_and_a_writer_sees_one_error(lab: Lab) -> None:
    with watched(lab) as (watch, primary), by_the_address(lab) as writer:
        with lab.inside():
            heir = str(lab.manager().switch_over(CLUSTER)["to"])
        assert watch.until_answered(primary) == heir
        writer.go_on()
    assert watch.answered == [primary, heir]
    assert len(writer.errors) == 1, writer.errors
    assert writer.longest < MOVED_SECONDS
    assert writer.rows() == writer.acknowledged


def test_a_host_that_was_frozen_does_not_have_it_when_it_is_thawed(lab: Lab) -> None:
    """Its kernel runs, and answers ARP as long as the address is on."""
    with watched(lab) as (watch, primary):
        lab.freeze(primary)
        heir = watch.until_answered(primary)
        lab.thaw(primary)
    assert watch.answered == [primary, heir]


def test_a_host_that_was_cut_off_does_not_have_it_when_it_is_back(lab: Lab) -> None:
    with watched(lab) as (watch, primary), through_haproxy(lab) as writer:
        lab.cut(primary, "all")
        heir = watch.until_answered(primary)
        writer.go_on()
        lab.heal()
    assert watch.answered == [primary, heir]
    # once more for a client that is just connecting
    assert 1 <= len(writer.errors) <= 2, writer.errors
    assert writer.rows() == writer.acknowledged


def test_a_primary_that_its_clients_alone_can_reach_loses_it(lab: Lab) -> None:
    with watched(lab) as (watch, primary):
        others = [host for host in lab.hosts() if host not in (primary, "client")]
        lab.cut(primary, ",".join(others))
        heir = watch.until_answered(primary)
        lab.heal()
    assert watch.answered == [primary, heir]


def test_an_agent_that_is_killed_and_started_again_costs_nothing(lab: Lab) -> None:
    with watched(lab) as (watch, primary):
        lab.kill_agent(primary)
        time.sleep(KERNEL_SECONDS)
        lab.start_agent(primary)
    assert watch.answered == [primary]
    assert {host for host, on in watch.held if on} == {primary}
    assert all(on for host, on in watch.held if host == primary), "it was never off"


def test_an_agent_that_hangs_costs_nothing_until_its_host_is_cut_off(lab: Lab) -> None:
    with watched(lab) as (watch, primary):
        try:
            lab.hang_agent(primary)
            time.sleep(2 * KERNEL_SECONDS)
            assert watch.answered == [primary]
            assert {host for host, on in watch.held if on} == {primary}
            assert all(on for host, on in watch.held if host == primary), "it was never off"
            assert "its keeper process keeps its lease" in lab.status()["reason"]
            others = [host for host in lab.hosts() if host not in (primary, "client")]
            lab.cut(primary, ",".join(others))
            heir = watch.until_answered(primary)
            used = processor_seconds(lab, primary)
            time.sleep(KERNEL_SECONDS)
            for process, seconds in processor_seconds(lab, primary).items():
                assert seconds - used[process] < 0.05 * KERNEL_SECONDS, f"{process} spins"
        finally:
            lab.cont_agent(primary)
            lab.heal()
    assert watch.answered == [primary, heir]
    assert watch.both == []


def test_without_its_agent_it_goes_with_the_server(lab: Lab) -> None:
    with watched(lab) as (watch, primary):
        server = lab.server(primary)
        lab.kill_agent(primary)
        server.kill()
        heir = watch.until_answered(primary)
        lab.start_agent(primary)
    assert watch.answered == [primary, heir]
