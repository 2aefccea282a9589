"""Threads and processes with a real-time priority sleep in any case: one that does not takes a processor.

Their loops use a simulated clock here, which advances only while they sleep. The test counts how often they wake in ten
seconds.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, cast

import pytest

from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.lease.gate import Gate
from holdfast.agent.lease.keeper import Keeper, Upholders
from holdfast.agent.lease.keeper_process import Begin, KeeperProcess
from holdfast.agent.lease.peers import Peers
from holdfast.agent.lease.second_keeper import SecondKeeper
from holdfast.agent.lease.watchdog import Watchdog
from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.vip.process import VipProcess
from holdfast.agent.vip.supervisor import Address
from holdfast.clock import Clock, SystemClock
from holdfast.config.vip import VipConfig
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Electorate, Quorum
from holdfast.core.view import MemberState
from holdfast.endpoint.vip import Vip
from holdfast.errors import Refused
from holdfast.server.process.process import Running
from tests.unit.hand_clock import HandClock

BEGIN, END = 1000.0, 1010.0
LEASE = 1.2
MOST = 150
"""Accepted number of wakings in these ten seconds: the most frequent check is each 0.1 s."""


class Over(Exception):
    """The ten seconds are over."""


@dataclass
class Time:
    """A clock, and how a loop sleeps.

    :ivar events: what happens at what moment; may make a file readable
    """

    now: float = BEGIN
    woken: int = 0
    rung: bool = False
    events: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return HandClock(lambda: self.now)

    def at(self, seconds: float, event: Callable[[], object]) -> None:
        heapq.heappush(self.events, (BEGIN + seconds, len(self.events), event))

    def ring(self) -> None:
        self.rung = True

    def sleep(self, until: float | None, *files: int) -> None:
        self.woken += 1
        assert self.woken <= MOST, f"it spins at {self.now - BEGIN:.3f} s"
        while not self.rung and not _readable(files):
            moment = self.events[0][0] if self.events else math.inf
            due = math.inf if until is None else until
            self.now = max(self.now, min(moment, due, END))
            if self.now >= END:
                raise Over
            if due <= moment:
                break
            heapq.heappop(self.events)[2]()
        self.rung = False


def _readable(files: tuple[int, ...]) -> bool:
    poll = select.poll()
    for each in files:
        poll.register(each, select.POLLIN)
    return bool(poll.poll(0))


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def run_of(server: subprocess.Popen[bytes]) -> Running:
    return Running(server.pid, os.pidfd_open(server.pid), "run", True)


# -- the sleeping itself ---------------------------------------------------------------------------


def test_a_sleep_that_ends_at_once_makes_the_next_one_longer_up_to_a_bound() -> None:
    floor = boottime.Floor()
    assert floor.seconds == 0, "the first is done without delay"
    found = []
    for _ in range(6):
        floor.slept(0.0)
        found.append(floor.seconds)
    least, most = boottime.FLOOR_SECONDS, boottime.MOST_FLOOR_SECONDS
    assert found == [least, 2 * least, 4 * least, most, most, most]
    floor.slept(least)
    assert floor.seconds == 0


def test_a_thread_that_is_woken_all_the_time_does_not_spin_however_long_its_work_takes() -> None:
    alarm = boottime.Alarm()
    begun, rounds, worked = time.monotonic(), 0, 0.0
    while time.monotonic() < begun + 0.3:
        alarm.sleep(0.0)
        rounds += 1
        busy = time.monotonic()
        while time.monotonic() < busy + 2 * boottime.FLOOR_SECONDS:
            pass
        worked += time.monotonic() - busy
    alarm.close()
    assert rounds <= 0.3 / boottime.MOST_FLOOR_SECONDS + 6
    assert worked < 0.3 / 2, "it slept for more than half of the time"


# -- the process that holds a virtual address ------------------------------------------------------


class MemoryVip(Vip):
    """:ivar broken: what the kernel refuses"""

    def __init__(self) -> None:
        super().__init__("192.0.2.10/24", f"e{os.getpid()}")  # each test process has its own place
        self.there = False
        self.broken: set[str] = set()

    def put(self, seconds: int) -> bool:
        if "put" in self.broken:
            raise Refused("eth0 is down")
        before, self.there = self.there, True
        return not before

    def remove(self) -> bool:
        if "remove" in self.broken:
            raise Refused("no CAP_NET_ADMIN")
        before, self.there = self.there, False
        return before

    def announce(self, tell: bool = True) -> None:
        pass

    def hang_up(self) -> None:
        pass

    def hush(self) -> None:
        pass

    def trouble(self) -> str:
        return ""


class Held:
    """A process that holds an address, run here; its agent is the test."""

    def __init__(self, server: subprocess.Popen[bytes], words: bool) -> None:
        self.time = Time()
        self.vip = MemoryVip()
        self.server = server
        self.words = LeaseWords() if words else None
        self.agent, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.holder = VipProcess(self.vip, 3.0, self._its, self.time.clock, self.time)

    def hold(self, until: float) -> None:
        fd = os.pidfd_open(self.server.pid)
        fds = [fd, *([self.words.fd] if self.words else [])]
        socket.send_fds(self.agent, [f"hold {until!r}".encode()], fds)
        os.close(fd)

    def breaks(self, *what: str) -> None:
        self.vip.broken = set(what)

    def ten_seconds(self) -> None:
        try:
            self.holder.run()
        except Over:
            pass
        finally:
            for each in (self.agent, self._its, self.holder._seat):
                if each is not None:
                    each.close()


both = pytest.mark.parametrize("words", [False, True], ids=["alone", "with a keeper process"])


@both
def test_once_the_lease_is_over_without_a_word_of_its_agent_the_address_goes_and_it_sleeps(
    server: subprocess.Popen[bytes], words: bool
) -> None:
    held = Held(server, words)
    held.time.at(0, lambda: held.hold(BEGIN + LEASE))
    seen: list[bool] = []
    held.time.at(LEASE - 0.01, lambda: seen.append(held.vip.there))
    held.time.at(LEASE + 0.01, lambda: seen.append(held.vip.there))
    held.ten_seconds()
    assert seen == [True, False]
    assert held.time.woken < 30


@both
@pytest.mark.parametrize("ends", ["lease", "server"])
def test_what_the_kernel_refuses_is_tried_twice_a_second_while_it_is_wanted(
    server: subprocess.Popen[bytes], words: bool, ends: str
) -> None:
    held = Held(server, words)
    held.breaks("put")
    held.time.at(0, lambda: held.agent.send(b"drop"))
    held.time.at(0.5, lambda: held.hold(BEGIN + (3 if ends == "lease" else 100)))
    if ends == "server":
        held.time.at(3, server.kill)
        held.time.at(3, server.wait)
    woken: list[int] = []
    held.time.at(3.5, lambda: woken.append(held.time.woken))
    held.ten_seconds()
    assert held.time.woken <= woken[0] + 3, "what is not wanted any more is not tried"


@both
def test_an_address_that_cannot_be_taken_off_is_tried_twice_a_second(
    server: subprocess.Popen[bytes], words: bool
) -> None:
    held = Held(server, words)
    held.time.at(0, lambda: held.hold(BEGIN + LEASE))
    held.time.at(0.5, lambda: held.breaks("remove"))
    held.time.at(9, lambda: held.breaks())
    held.ten_seconds()
    assert not held.vip.there
    assert 15 < held.time.woken < 80


def test_without_its_agent_it_looks_twice_a_second(server: subprocess.Popen[bytes]) -> None:
    held = Held(server, False)
    held.time.at(0, lambda: held.hold(BEGIN + LEASE))
    held.time.at(0.5, lambda: held.agent.shutdown(socket.SHUT_RDWR))
    held.ten_seconds()
    assert BEGIN + 3.4 <= held.time.now < BEGIN + 4.5, "its time is over, and it ends"
    assert held.time.woken < 30


# -- the lease's thread and the keeper process -----------------------------------------------------


def known(need: int = 1) -> Electorate:
    return Electorate("m1", 1, 1, (Quorum(("m2", "m3"), need),), {"m2": "x", "m3": "y"}, "h:1")


class Unkillable:
    """A watch whose server hangs in the kernel: it does not end when it is killed."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.killed = 0

    def current(self) -> Running:
        return self._running

    def kill(self, because: str) -> None:
        self.killed += 1


@pytest.mark.parametrize("asked", [True, False], ids=["voters are silent", "nobody can vouch"])
def test_the_lease_s_thread_sleeps_also_when_what_it_killed_does_not_end(
    server: subprocess.Popen[bytes], tmp_path: Path, asked: bool
) -> None:
    moments = Time()
    file = ElectorateFile(tmp_path)
    if asked:
        file.keep(known(), LEASE)
    server_run = Unkillable(run_of(server))
    published = PublishedState(MemberState("m1", Flavor.MARIADB), moments.clock)
    keeper = Keeper(
        published,
        cast(ServerRun, server_run),
        lambda term, leader: False,
        file,
        cast(Peers, _Mute()),
        BackgroundWriter(),
        Upholders(),
        moments,
    )
    keeper._enforce(server_run.current(), grace=True)
    ten_seconds(keeper._keep_once)
    assert server_run.killed == 1
    assert moments.woken < 12


def ten_seconds(once: Callable[[], None]) -> None:
    with contextlib.suppress(Over):
        while True:
            once()


class _Mute:
    """Peers that never answer."""

    def ask(self, *_: object) -> None:
        pass

    def know(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("killed", [False, True], ids=["agent hangs", "agent was killed"])
def test_the_keeper_process_sleeps_also_when_what_it_killed_does_not_end(
    server: subprocess.Popen[bytes], killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Running, "kill", lambda self: None)
    moments = Time()
    agent, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = LeaseWords()
    words.agent_until = BEGIN + LEASE
    process = KeeperProcess(its, Begin("m1"), words, moments.clock, moments)
    process._peers = cast(Peers, _Mute())
    process._lease_state.known = known()
    process._arm(run_of(server))
    if killed:
        moments.at(0.5, lambda: agent.shutdown(socket.SHUT_RDWR))
    with agent, its:
        ten_seconds(process._once)
    assert process._fenced
    assert moments.woken < 25


# -- gate, watchdog, and what runs these processes -------------------------------------------------


class Counted(SystemClock):
    """A clock that counts how often it is read."""

    def __init__(self) -> None:
        self.read = 0

    def boottime(self) -> float:
        self.read += 1
        return super().boottime()


def test_a_gate_whose_lease_is_over_waits_for_the_next_one(
    server: subprocess.Popen[bytes],
) -> None:
    clock = Counted()
    asked: list[int] = []

    def ports(pid: int) -> list[int]:
        asked.append(pid)
        return []

    gate = Gate(("/nowhere/nft",), "g", BackgroundWriter(), lambda failed: None, clock, ports)
    gate.start()
    try:
        gate.arm(run_of(server), boottime.now() - 1)
        time.sleep(0.3)
        assert clock.read < 10
        assert not asked
        gate.extend(boottime.now() + 60)
        assert _until(lambda: bool(asked)), "the lease was renewed: the gate is raised"
    finally:
        gate.stop()
        gate.join(5)


def test_a_watchdog_that_cannot_be_opened_is_tried_seldom(server: subprocess.Popen[bytes]) -> None:
    tried: list[Path] = []

    def missing(path: Path) -> NoReturn:
        tried.append(path)
        raise FileNotFoundError(2, "No such file or directory")

    dog = Watchdog(Path("/nowhere"), BackgroundWriter(), lambda failed: None, device=missing)
    dog.start()
    try:
        dog.arm(run_of(server), boottime.now() - 1)
        dog.ready(5)
        time.sleep(0.3)
        assert len(tried) == 1
    finally:
        dog.stop()
        dog.join(5)


def test_a_process_that_ends_at_once_is_started_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper process, and the one that holds an address."""
    started: dict[str, list[float]] = {}
    real: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen

    def ends_at_once(argv: tuple[str, ...], **more: object) -> subprocess.Popen[bytes]:
        started.setdefault(argv[2], []).append(time.monotonic())
        return real(("/bin/true",), **more)

    monkeypatch.setattr(subprocess, "Popen", ends_at_once)
    keeper = SecondKeeper(
        tmp_path, Begin("m1"), BackgroundWriter(), lambda what, fault: None, False
    )
    published = PublishedState(MemberState("m1", Flavor.MARIADB))
    config = VipConfig(address="192.0.2.10/24", interface="eth0")
    address = Address(config, published, BackgroundWriter(), lambda failed: None)
    keeper.start()
    address.start()
    try:
        assert _until(lambda: [len(each) > 1 for each in started.values()] == [True, True])
    finally:
        keeper.stop()
        address.stop()
        keeper.join(5)
        address.join(5)
    assert all(second - first > 0.9 for first, second, *_ in started.values())


def _until(reached: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        time.sleep(0.005)
    return reached()
