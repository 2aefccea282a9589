"""The process that holds a virtual address: the kernel's own lifetimes, real ARP and neighbour discovery, between two
hosts."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Interface, ip_interface
from pathlib import Path

import pytest

from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.vip.supervisor import Address
from holdfast.config.vip import VipConfig
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from holdfast.endpoint.arp import Arp
from holdfast.endpoint.netlink import where
from holdfast.server.process.process import Running

LEASE = 1.2
LINGER = 4.0
KERNEL_SECONDS = 1.0
"""The shortest lifetime; it may end a third of a second later, and this machine may be busy."""
FOUR, SIX = "10.99.0.100/24", "fd00:99::100/64"
both = pytest.mark.parametrize("address", [FOUR, SIX], ids=["ipv4", "ipv6"])
_libc = ctypes.CDLL(None, use_errno=True)


class Host:
    """A network namespace with an ``eth0``."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @contextmanager
    def inside(self) -> Iterator[None]:
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            assert _libc.setns(there, 0x40000000) == 0
            yield
        finally:
            _libc.setns(here, 0x40000000)
            os.close(here)
            os.close(there)

    def ip(self, *argv: str) -> None:
        subprocess.run(("ip", "-n", self.namespace, *argv), check=True)

    def has(self, address: str) -> bool:
        with self.inside():
            return bool(where(ip_interface(address)))

    @property
    def hardware(self) -> str:
        with self.inside():
            shown = subprocess.run(
                ("ip", "-o", "link", "show", "eth0"), capture_output=True, check=True, text=True
            )
        return shown.stdout.partition("link/ether ")[2].split()[0]


class Holding:
    """The process, with this process as its agent and a sleeper as its server."""

    def __init__(self, host: Host, address: str, stack: ExitStack, *before: str, to: str = "eth0"):
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told = json.dumps({"address": address, "interface": to, "linger": LINGER})
        with its, host.inside():
            argv = (*before, sys.executable, "-m", "holdfast.agent.vip.process", told)
            self.process = subprocess.Popen(argv, stdin=its.fileno())
        self.agent = stack.enter_context(own)
        self.words = LeaseWords()
        self.server = subprocess.Popen(("sleep", "60"))
        stack.callback(_end, self.process)
        stack.callback(_end, self.server)

    def hold(self, lease: float = LEASE, first: bool = True) -> None:
        message = f"hold {boottime.now() + lease!r}".encode()
        if not first:
            self.agent.send(message)
            return
        fd = os.pidfd_open(self.server.pid)
        socket.send_fds(self.agent, [message], [fd, self.words.fd])
        os.close(fd)

    def keep(self, seconds: float, lease: float = LEASE) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.hold(lease, first=False)
            time.sleep(0.1)

    def processor_seconds(self) -> float:
        """The processor time of the process so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def said(self, wanted: str, seconds: float = 15.0) -> str:
        """The next message that begins so."""
        end = time.monotonic() + seconds
        heard: list[str] = []
        while select.select([self.agent], [], [], max(0.0, end - time.monotonic()))[0]:
            heard.append(self.agent.recv(4096).decode())
            if heard[-1].startswith(wanted):
                return heard[-1]
            assert heard[-1], f"it has ended; it said {heard}"
        raise AssertionError(f"it never said {wanted!r}, but {heard}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()


def until(reached: Callable[[], bool], seconds: float = 15.0) -> float:
    """Returns how long it took."""
    begin = time.monotonic()
    while not reached():
        assert time.monotonic() < begin + seconds
        time.sleep(0.005)
    return time.monotonic() - begin


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two on one network."""
    names = [f"hfvip{os.getpid()}{each}" for each in "ab"]
    try:
        for name in names:
            subprocess.run(("ip", "netns", "add", name), check=True)
        a, b = (Host(name) for name in names)
        a.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, host in enumerate((a, b), 1):
            host.ip("addr", "add", f"10.99.0.{number}/24", "dev", "eth0")
            host.ip("addr", "add", f"fd00:99::{number}/64", "dev", "eth0", "nodad")
            host.ip("link", "set", "lo", "up")
            host.ip("link", "set", "eth0", "up")
        yield a, b
    finally:
        for name in names:
            subprocess.run(("ip", "netns", "del", name), check=False)


@both
def test_it_is_on_while_the_lease_is_renewed_and_no_longer(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    a, _ = hosts
    holding = Holding(a, address, stack)
    holding.hold()
    holding.said("on")
    assert a.has(address)
    holding.process.send_signal(signal.SIGHUP)  # as `systemctl kill` does with all of a unit
    holding.keep(1.5)
    assert a.has(address)
    until_ = boottime.now() + LEASE
    holding.hold(LEASE, first=False)
    holding.said("off")
    assert until_ - 0.3 <= boottime.now() <= until_ + 1, "the end of the lease itself ends it"
    assert not a.has(address)
    used = holding.processor_seconds()
    time.sleep(1.0)
    assert holding.processor_seconds() - used < 0.05, "its agent is silent still: it sleeps"


@both
def test_while_its_agent_hangs_it_is_on_as_long_as_the_keeper_process_has_the_lease_upheld(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    host, _ = hosts
    holding = Holding(host, address, stack)
    holding.hold()
    holding.said("on")
    end = boottime.now() + 3 * LEASE
    over = 0.0
    while boottime.now() < end:
        over = boottime.now() + LEASE / 2
        holding.words.keeper_until = over
        assert host.has(address)
        time.sleep(0.05)
    holding.said("off")
    assert over <= boottime.now() < over + 1.0
    assert not host.has(address)


@both
def test_the_kernel_ends_it_on_a_host_that_stands_still(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    a, _ = hosts
    holding = Holding(a, address, stack)
    holding.hold()
    holding.said("on")
    holding.keep(0.5)
    holding.process.send_signal(signal.SIGSTOP)
    took = until(lambda: not a.has(address))
    assert KERNEL_SECONDS - 0.3 < took < KERNEL_SECONDS + 1
    holding.process.send_signal(signal.SIGCONT)
    holding.said("off")
    assert not a.has(address), "thawed, it does not come back"


@both
def test_clients_follow_it_at_once(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    """A third host knows the old place, and the new holder announces the new one to it."""
    a, b = hosts
    ip = str(ip_interface(address).ip)
    with b.inside():
        known = ("ip", "neigh", "replace", ip, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
        subprocess.run((*known, "nud", "reachable"), check=True)
    holding = Holding(a, address, stack)
    holding.hold()
    holding.said("on")

    def learned() -> bool:
        with b.inside():
            shown = subprocess.run(("ip", "neigh", "show", ip), capture_output=True, text=True)
        return a.hardware in shown.stdout

    until(learned, 5)


@both
def test_where_the_server_goes_on_its_clients_are_told(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    """They wait for an answer, which could not be sent once the address is off."""
    a, b = hosts
    ip = str(ip_interface(address).ip)
    family = socket.AF_INET if ip_interface(address).version == 4 else socket.AF_INET6
    with a.inside():
        # as servers do: one socket, on all addresses of both kinds
        listener = stack.enter_context(
            socket.create_server(("::", 3306), family=socket.AF_INET6, dualstack_ipv6=True)
        )
    holding = Holding(a, address, stack)
    holding.hold()
    holding.said("on")

    def client(to: str) -> socket.socket:
        with b.inside():
            made = stack.enter_context(socket.socket(family))
        made.settimeout(5)
        made.connect((to, 3306))
        stack.enter_context(listener.accept()[0])
        return made

    by_it, by_its_own = client(ip), client(ip.replace("100", "1"))
    holding.agent.send(b"drop")
    with pytest.raises(ConnectionResetError):
        by_it.recv(1)
    holding.said("off")
    by_its_own.settimeout(0.2)
    with pytest.raises(TimeoutError):
        by_its_own.recv(1)
    assert not a.has(address)


@both
def test_it_goes_with_the_server(hosts: tuple[Host, Host], stack: ExitStack, address: str) -> None:
    a, _ = hosts
    holding = Holding(a, address, stack)
    holding.hold(60)
    holding.said("on")
    holding.server.kill()
    holding.said("off")
    assert not a.has(address)


def test_an_agent_that_comes_back_finds_it_where_it_was(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, b = hosts
    with b.inside():
        arp = Arp(IPv4Interface(FOUR).ip, "eth0")
    stack.callback(arp.close)
    first = Holding(a, FOUR, stack)
    first.hold()
    first.said("on")
    until(lambda: arp.rival() == a.hardware)
    first.agent.close()
    time.sleep(0.3)
    arp.rival()
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        assert a.has(FOUR), "its server is well"
    assert not arp.rival(), "what it cannot know to be right it does not announce"
    second = Holding(a, FOUR, stack)
    second.server, second_server = first.server, second.server
    second_server.kill()
    second_server.wait()
    second.hold(60)
    second.said("on")
    assert first.process.wait(10) == 0, "one holds it"
    assert a.has(FOUR)
    second.agent.send(b"drop")
    second.said("off")
    assert not a.has(FOUR)


def test_without_its_agent_it_goes_with_the_server_and_stays_for_the_time_given(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, _ = hosts
    for dies in (True, False):
        holding = Holding(a, FOUR, stack)
        holding.hold()
        holding.said("on")
        holding.agent.close()
        if dies:
            holding.server.kill()
        assert holding.process.wait(LINGER + 10) == 0
        assert not a.has(FOUR)


def test_killed_together_with_its_agent_the_kernel_ends_it(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, _ = hosts
    holding = Holding(a, FOUR, stack)
    holding.hold()
    holding.said("on")
    holding.process.kill()
    assert until(lambda: not a.has(FOUR)) < KERNEL_SECONDS + 1


@both
def test_a_rival_is_told_of_and_where_nobody_knows_better_it_is_left_to_it(
    hosts: tuple[Host, Host], stack: ExitStack, address: str
) -> None:
    a, b = hosts
    b.ip("addr", "add", address, "dev", "eth0", *(("nodad",) if address == SIX else ()))
    holding = Holding(a, address, stack)
    holding.hold(60)
    holding.said("on")
    assert holding.said("rival") == f"rival {b.hardware}"
    assert a.has(address), "its own lease is what it goes by"
    holding.agent.close()
    assert holding.process.wait(10) == 0
    assert not a.has(address)


@pytest.mark.parametrize("found", ["10.99.0.100/24", "10.99.0.100/32"])
def test_what_is_found_on_is_taken_off_where_the_server_is_no_primary(
    hosts: tuple[Host, Host], stack: ExitStack, found: str
) -> None:
    a, _ = hosts
    a.ip("addr", "add", found, "dev", "eth0")
    holding = Holding(a, FOUR, stack)
    time.sleep(0.2)
    assert a.has(FOUR), "before it is told, it touches nothing"
    holding.agent.send(b"drop")
    assert holding.said("off") == "off found"
    assert not a.has(FOUR)


def test_a_missing_interface_is_named_and_may_come_later(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, _ = hosts
    holding = Holding(a, FOUR, stack, to="lan7")
    assert "no interface lan7 (it has eth0)" in holding.said("trouble")
    holding.hold(60)
    a.ip("link", "add", "lan7", "type", "veth", "peer", "name", "lan8")
    a.ip("link", "set", "lan7", "up")
    holding.said("on")
    assert holding.said("trouble") == "trouble "
    assert a.has(FOUR)


def test_who_may_not_is_told_so_before_it_is_needed(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, _ = hosts
    fewer = "-net_admin,-net_raw"
    holding = Holding(a, FOUR, stack, "setpriv", f"--bounding-set={fewer}", f"--inh-caps={fewer}")
    said = holding.said("trouble")
    assert "no CAP_NET_ADMIN and no CAP_NET_RAW" in said
    holding.agent.send(b"drop")
    holding.said("off")
    holding.hold(60)
    assert "no CAP_NET_ADMIN" in holding.said("trouble")
    assert not a.has(FOUR)


# -- the agent's side ------------------------------------------------------------------------------


def test_a_holder_that_was_killed_is_started_again(
    hosts: tuple[Host, Host], stack: ExitStack
) -> None:
    a, _ = hosts
    server = subprocess.Popen(("sleep", "60"))
    stack.callback(_end, server)
    running = Running(server.pid, os.pidfd_open(server.pid), "run", False)
    opened = MemberState(
        "m1", Flavor.MARIADB, server=ServerStatus.UP, incarnation="run", writable=True
    )
    published, writer, alarms = PublishedState(opened), BackgroundWriter(), list[str]()
    writer.start()
    stack.callback(writer.stop, 5)
    config = VipConfig(address=FOUR, interface="eth0", linger=2.0)
    address = Address(config, published, writer, alarms.append)
    published.heeding.append(address.changed)
    stack.callback(address.stop)
    address.arm(running, boottime.now() + 60)
    with a.inside():
        address.start()
    until(lambda: address.shown)
    _kill_holder(a)
    until(lambda: any("has ended" in each for each in alarms))
    until(lambda: not alarms[-1].count("has ended"))
    until(lambda: address.shown)
    assert a.has(FOUR)

    told = []
    published.on_change = lambda: told.append(a.has(FOUR))
    published.change(writable=False)
    assert told == [False], "whoever freezes it for a switchover is told so when it is off"
    assert address.gone(10)
    published.change(writable=True)
    until(lambda: address.shown)
    assert a.has(FOUR)
    assert not address.gone(0)
    address.lift()
    assert address.gone(10)
    assert not a.has(FOUR)


def _kill_holder(host: Host) -> None:
    there = Path(f"/run/netns/{host.namespace}").stat().st_ino
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "ns" / "net").stat().st_ino == there and b"holdfast.agent.vip.process" in (
                path / "cmdline"
            ).read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
