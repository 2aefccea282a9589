"""The gate in the kernel: real nft, real TCP, hosts that are frozen. Each test has a network namespace of its own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.agent.lease.gate import Gate, listening_ports
from holdfast.agent.lease.nft import Expired, Table
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.clock import SYSTEM_CLOCK
from holdfast.errors import Refused, Unreachable
from holdfast.sandbox.servers import trees
from holdfast.server.process.process import Running
from tests.unit.hand_clock import HandClock

pytestmark = pytest.mark.alone

PORT, OTHER = 3306, 3307
LEASE = 0.5

SERVER = f"""
import socket, threading
def answer(client):
    while said := client.recv(100):
        client.sendall(b"answer to " + said)
for port in ({PORT}, {OTHER}):
    listener = socket.create_server(("127.0.0.1", port))
    if port == {PORT}:
        main = listener
    else:
        more = listener
def serve(listener):
    while True:
        threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
threading.Thread(target=serve, args=(more,), daemon=True).start()
print("listening", flush=True)
serve(main)
"""

AGENT = """
import json, sys, time, os
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.lease.gate import Gate
from holdfast.server.process.process import Running
nft, server, lease = json.loads(sys.argv[1])
clerk = BackgroundWriter()
clerk.start()
gate = Gate(nft, "holdfast_t", clerk, lambda failed: failed and print("alarm:", failed, flush=True))
gate.start()
gate.arm(Running(server, os.pidfd_open(server), "x", False), boottime.now() + lease)
gate.ready(5)
print("armed", gate._table._process.pid, flush=True)
while True:
    gate.extend(boottime.now() + lease)
    time.sleep(lease / 5)
"""


@dataclass
class Host:
    """A network namespace with a server in it."""

    namespace: str
    server: subprocess.Popen[bytes]

    def run(self, *argv: str) -> subprocess.Popen[bytes]:
        return _run(self.namespace, *argv)

    @property
    def nft(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace, *trees.companion("nft"))

    @property
    def tables(self) -> str:
        done = subprocess.run((*self.nft, "list", "tables"), capture_output=True, check=True)
        return done.stdout.decode()

    def connect(self, port: int = PORT) -> socket.socket:
        """From within: a thread enters the namespace; its connection can be used by any thread."""
        found: list[socket.socket | OSError] = []

        def enter() -> None:
            with Path(f"/run/netns/{self.namespace}").open() as file:
                ctypes.CDLL(None).setns(file.fileno(), 0x40000000)  # CLONE_NEWNET
            try:
                found.append(socket.create_connection(("127.0.0.1", port), 2))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def answers(self, port: int = PORT) -> bool:
        try:
            with self.connect(port) as client:
                return ask(client)
        except OSError:
            return False

    def running(self) -> Running:
        return Running(self.server.pid, os.pidfd_open(self.server.pid), "x", False)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def stopped(pid: int) -> bool:
    """Whether each of its threads has stopped: the first one that gets the signal has to stop the others."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def ask(client: socket.socket) -> bool:
    try:
        client.sendall(b"question")
        return client.recv(100) == b"answer to question"
    except OSError:
        return False


def _run(namespace: str, *argv: str) -> subprocess.Popen[bytes]:
    enter = ("nsenter", f"--net=/run/netns/{namespace}")
    return subprocess.Popen((*enter, *argv), stdout=subprocess.PIPE, start_new_session=True)


@pytest.fixture
def host() -> Iterator[Host]:
    name = f"hfgate{os.getpid()}"
    subprocess.run(("ip", "netns", "add", name), check=True)
    try:
        subprocess.run(("ip", "-n", name, "link", "set", "lo", "up"), check=True)
        server = _run(name, sys.executable, "-c", SERVER)
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        yield Host(name, server)
        end(server)
    finally:
        subprocess.run(("ip", "netns", "del", name), check=True)


@pytest.fixture
def table(host: Host) -> Iterator[Table]:
    made = Table(host.nft, "holdfast_m-1", (PORT,), boottime.now() + LEASE, SYSTEM_CLOCK)
    yield made
    made.close()


@pytest.fixture
def agent(host: Host) -> Iterator[tuple[int, int]]:
    """The pids of an agent that renews, and of its nft."""

    argument = json.dumps([trees.companion("nft"), host.server.pid, LEASE])
    process = host.run(sys.executable, "-c", AGENT, argument)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().split()
        assert said[0] == b"armed", said
        table = int(said[1])
        yield process.pid, table
    finally:
        end(process)
    with contextlib.suppress(ProcessLookupError):
        os.kill(table, signal.SIGCONT)  # a stopped one does not notice that its agent has ended


def test_a_port_is_open_as_long_as_its_lease_is_renewed(host: Host, table: Table) -> None:
    with host.connect() as client:
        for _ in range(6):
            table.renew(boottime.now() + LEASE)
            assert ask(client)
            time.sleep(LEASE / 3)


def test_once_the_lease_is_over_the_kernel_refuses(host: Host, table: Table) -> None:
    until = boottime.now() + LEASE
    with host.connect() as client, host.connect() as waiting:
        table.renew(until)
        while boottime.now() < until:
            ask(client)
        assert not ask(client)
        assert not ask(waiting)
    with pytest.raises(ConnectionRefusedError):
        host.connect()
    assert host.answers(OTHER), "a port that is not the server's"


def test_a_renewal_that_comes_after_the_end_changes_nothing(host: Host, table: Table) -> None:
    """As from an agent that was frozen on its way: it computed the time before, nft executes it after."""
    time.sleep(LEASE)
    table._clock = HandClock(lambda: boottime.now() - 10)  # the time that it had read
    with pytest.raises(Expired):
        table.renew(boottime.now())
    assert not host.answers()
    table._clock = SYSTEM_CLOCK
    with pytest.raises(Expired):
        table.renew(boottime.now() - 1)
    table.reopen(boottime.now() + LEASE)
    assert host.answers()


def test_the_table_ends_with_its_process(host: Host, table: Table) -> None:
    assert "holdfast_m_1" in host.tables
    time.sleep(LEASE)
    assert not host.answers()
    os.kill(table._process.pid, signal.SIGKILL)
    table._process.wait()
    end = time.monotonic() + 5
    while not host.answers():
        assert time.monotonic() < end
    assert "holdfast" not in host.tables
    with pytest.raises(Unreachable, match="ended"):
        table.renew(boottime.now() + LEASE)


def test_a_table_of_somebody_else_is_not_taken(host: Host, table: Table) -> None:
    with pytest.raises(Refused, match="nft:"):
        Table(host.nft, "holdfast_m-1", (PORT,), boottime.now() + LEASE, SYSTEM_CLOCK)
    table.renew(boottime.now() + LEASE)
    assert host.answers()


def test_an_nft_that_hangs_is_given_up(host: Host, table: Table) -> None:
    os.kill(table._process.pid, signal.SIGSTOP)
    with pytest.raises(Unreachable, match="does not answer"):
        table.renew(boottime.now() + LEASE)
    table.close()
    assert host.answers()


def test_the_ports_are_those_that_the_server_listens_on(host: Host) -> None:
    assert listening_ports(host.server.pid) == [PORT, OTHER]
    assert listening_ports(2**22 + 1) == []


def test_a_host_that_is_thawed_too_late_answers_nothing(host: Host, agent: tuple[int, int]) -> None:
    """A client has asked while it was frozen: the answer would be from before another primary opened."""
    with host.connect() as client, host.connect() as other:
        assert ask(client)
        frozen = (*agent, host.server.pid)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        while not all(map(stopped, frozen)):
            time.sleep(0.01)
        client.sendall(b"question")
        time.sleep(2 * LEASE)
        # the server first: the worst case
        os.kill(host.server.pid, signal.SIGCONT)
        client.settimeout(LEASE)
        with pytest.raises((ConnectionResetError, TimeoutError)):
            client.recv(100)
        assert not ask(other)
        with pytest.raises(ConnectionRefusedError):
            host.connect()


def test_an_agent_that_is_killed_leaves_its_server_open(host: Host, agent: tuple[int, int]) -> None:
    os.kill(agent[0], signal.SIGKILL)
    time.sleep(2 * LEASE)
    assert host.answers()
    assert "holdfast" not in host.tables


def test_an_agent_that_is_frozen_alone_cannot_keep_the_port_open(
    host: Host, agent: tuple[int, int]
) -> None:
    os.kill(agent[0], signal.SIGSTOP)
    time.sleep(2 * LEASE)
    assert not host.answers()


class Raised:
    """A gate in this process, for the server of ``host``."""

    def __init__(self, host: Host, command: tuple[str, ...], insist: bool = True) -> None:
        self.alarms: list[str] = []
        writer = BackgroundWriter()
        self.gate = Gate(command, "holdfast_g", writer, self.alarms.append, insist=insist)
        self.gate.start()
        self.host = host

    def arm(self) -> None:
        self.gate.arm(self.host.running(), boottime.now() + LEASE)
        self.gate.ready(5)

    def hold(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.gate.extend(boottime.now() + LEASE)
            time.sleep(LEASE / 10)

    def end(self) -> None:
        self.gate.stop()
        self.gate.join(5)


def test_a_gate_whose_nft_has_died_is_raised_again(host: Host) -> None:
    raised = Raised(host, host.nft)
    raised.arm()
    assert "holdfast_g" in host.tables
    assert raised.gate._table is not None
    raised.gate._table._process.kill()
    raised.hold(LEASE)
    assert "nft has ended" in raised.alarms[-1]
    assert host.answers(), "the server goes on without it"
    raised.hold(2.5)
    assert raised.alarms[-1] == ""
    assert "holdfast_g" in host.tables
    assert host.answers()
    raised.end()
    assert host.answers()


def test_an_nft_stands_by_and_may_have_died_or_hang(host: Host) -> None:
    raised = Raised(host, host.nft)
    for number in (None, signal.SIGKILL, signal.SIGSTOP):
        end = time.monotonic() + 5
        while (spare := raised.gate._spare) is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        if number is not None:
            os.kill(spare.pid, number)
        raised.arm()
        table = raised.gate._table
        assert table is not None
        assert (table._process is spare) == (number is None)
        assert "holdfast_g" in host.tables
        raised.gate.lift()
    raised.end()
    assert raised.gate._spare is None
    assert spare is not None
    assert spare.poll() is not None
    assert raised.alarms == [""]


def test_a_gate_that_cannot_be_raised_is_an_alarm_and_no_more(host: Host) -> None:
    raised = Raised(host, ("/nowhere/nft",))
    raised.arm()
    assert "cannot run /nowhere/nft" in raised.alarms[-1]
    assert host.answers()
    raised.gate.lift()
    end = time.monotonic() + 5
    while raised.alarms[-1]:
        assert time.monotonic() < end
    raised.end()


def test_a_gate_is_lifted_when_the_server_is_gone_or_follows(host: Host) -> None:
    raised = Raised(host, host.nft)
    raised.arm()
    time.sleep(LEASE)
    assert not host.answers()
    raised.gate.lift()
    end = time.monotonic() + 5
    while not host.answers():
        assert time.monotonic() < end
    raised.arm()
    assert "holdfast_g" in host.tables
    raised.end()
    assert "holdfast" not in host.tables


def test_where_it_need_not_be_there_is_a_gate_if_there_can_be(host: Host) -> None:
    able = Raised(host, host.nft, insist=False)
    able.arm()
    end = time.monotonic() + 5
    while "table inet holdfast_g\n" not in host.tables:
        assert time.monotonic() < end
    able.hold(3 * LEASE)
    assert host.answers()
    assert able.alarms == [""]
    able.end()
    bound = (*host.nft[:4], "setpriv", "--bounding-set=-all", "--inh-caps=-all", *host.nft[4:])
    unable = [Raised(host, bound, insist=False), Raised(host, ("/nowhere/nft",), insist=False)]
    for each, why in zip(unable, ("nft: ", "cannot run /nowhere/nft"), strict=True):
        begun = time.monotonic()
        each.arm()
        assert time.monotonic() < begun + 0.2, "an opening must not wait for it"
        each.hold(LEASE)
        assert why in each.alarms[-1]
        time.sleep(LEASE)
        assert host.answers()
        assert len(each.alarms) == 1, "it is tried seldom"
        each.end()
