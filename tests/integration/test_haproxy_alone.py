"""How HAProxy treats its file, checks, and pushes: a real one, in front of members that the test plays."""

from __future__ import annotations

import asyncio
import http.server
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.config.endpoints import HaproxyConfig
from holdfast.core.answers.routing import Directions, Reader
from holdfast.core.cluster import Member
from holdfast.endpoint.haproxy import Haproxy
from holdfast.endpoint.haproxy_file import HaproxyTarget, render
from holdfast.errors import HoldfastError
from holdfast.sandbox.servers import trees
from tests.integration.ports import free_ports

WAIT = 3.0


class FakeMember:
    """Greets with its name, as a server does; its agent answers ``/primary`` and ``/replica`` as ``role`` says."""

    def __init__(self, name: str, port: int, checks: int) -> None:
        self.name = name
        self.port = port
        self.role = ""
        self._sessions: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.start()
        member = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.path.strip("/").partition("?")[0]
                self.send_response(200 if asked == member.role else 503)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self.checks = http.server.ThreadingHTTPServer(("127.0.0.1", checks), Answer)
        threading.Thread(target=self.checks.serve_forever, args=(0.05,), daemon=True).start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._greet, args=(self._listener,), daemon=True).start()

    def _greet(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                session, _ = listener.accept()
                self._sessions.append(session)
                session.sendall(self.name.encode())

    def kill(self) -> None:
        """As a process that dies: its port refuses, its sessions end."""
        assert self._listener is not None
        for each in (self._listener, *self._sessions):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sessions.clear()

    def end(self) -> None:
        self.kill()
        self.checks.shutdown()
        self.checks.server_close()


class Rig:
    """Three members and HAProxy in front of them.

    :ivar program: argv that runs HAProxy, one of its versions
    :ivar file: HAProxy's
    """

    def __init__(self, folder: Path, ports: list[int], program: Sequence[str]) -> None:
        self.program = program
        names = ("m1", "m2", "m3")
        self.members = {
            name: FakeMember(name, ports[n], ports[n + 3]) for n, name in enumerate(names)
        }
        self.write, self.read = ports[6:]
        self.config = HaproxyConfig(
            socket=str(folder / "s"),
            write=f"127.0.0.1:{self.write}",
            read=f"127.0.0.1:{self.read}",
            wait=WAIT,
        )
        targets = [
            HaproxyTarget(each.name, "127.0.0.1", each.port, f"127.0.0.1:{each.checks.server_port}")
            for each in self.members.values()
        ]
        self.file = folder / "haproxy.cfg"
        self.file.write_text(render("c", targets, self.config))
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._directions = Directions(
            "c",
            1,
            None,
            (),
            tuple(Member(name, "127.0.0.1", 1, "http://127.0.0.1:1") for name in names),
        )
        self.clients = ThreadPoolExecutor(32)

    def start(self) -> None:
        argv = [*self.program, "-db", "-f", str(self.file)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.write), 1).close()
                return
            except OSError:
                assert time.monotonic() < end, self._log.read_text()
                time.sleep(0.01)

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        self.stop()
        for member in self.members.values():
            member.end()
        self.clients.shutdown()

    def show(self, primary: str = "", *readers: str) -> None:
        """Apply a manager's directions."""
        by_name = {member.name: member for member in self._directions.members}
        wanted = replace(
            self._directions,
            primary=by_name.get(primary),
            readers=tuple(Reader(by_name[name], 0.0) for name in readers),
        )

        async def scenario() -> None:
            endpoint = Haproxy(self.config)
            try:
                await endpoint.show(wanted)
            finally:
                await endpoint.close()

        asyncio.run(scenario())

    def showing(self, primary: str, *readers: str) -> None:
        end = time.monotonic() + 5
        while True:
            try:
                return self.show(primary, *readers)
            except HoldfastError:
                assert time.monotonic() < end
                time.sleep(0.01)

    def connect(self) -> socket.socket:
        """A session that writes."""
        client = socket.create_connection(("127.0.0.1", self.write), 10)
        assert client.recv(10)
        return client

    def greeted(self, port: int | None = None) -> str:
        """The name in the greeting, or "" where the connection is closed before."""
        try:
            with socket.create_connection(("127.0.0.1", port or self.write), 10) as client:
                return client.recv(10).decode()
        except ConnectionResetError:
            return ""

    def waiting(self, count: int = 8) -> list[Future[str]]:
        """Clients that have connected, and wait."""
        found = [self.clients.submit(self.greeted) for _ in range(count)]
        self.until(lambda: self.queued() >= count, "clients wait in the queue")
        assert not any(each.done() for each in found)
        return found

    def queued(self) -> int:
        for line in self.ask("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["c_write", "BACKEND"]:
                return int(fields[2])
        raise AssertionError("no statistics")

    def up(self, use: str) -> set[str]:
        """Servers that are up by HAProxy's own statistics."""
        rows = [line.split(",") for line in self.ask("show stat").splitlines()]
        return {
            row[1]
            for row in rows
            if row[0] == f"c_{use}" and row[1] in self.members and "UP" in row[17]
        }

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(self.config.socket)
            client.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def until(self, predicate: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not predicate():
            assert time.monotonic() < end, (
                f"not within {seconds} s: {what}\n{self._log.read_text()}"
            )
            time.sleep(0.01)


def ended(session: socket.socket) -> bool:
    """Whether it ends within seconds."""
    session.settimeout(5)
    try:
        return session.recv(10) == b""
    except ConnectionResetError:
        return True


@pytest.fixture(scope="module", params=["haproxy", "haproxy3"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """In front: HAProxy 2.6 and 3.0, which differ in how queued clients are let through."""
    with ExitStack() as stack:
        ports = stack.enter_context(free_ports(8))
        program = trees.companion(request.param)
        rig = Rig(tmp_path_factory.mktemp("haproxy"), ports, program)
        stack.callback(rig.end)
        rig.start()
        yield rig


@pytest.fixture
def rig(made: Rig) -> Rig:
    """Checks and a manager agree that m1 is primary, and that m2 can be read."""
    roles = {"m1": "primary", "m2": "replica", "m3": ""}
    for name, role in roles.items():
        made.members[name].role = role
    made.showing("m1", "m2")
    made.until(lambda: made.up("write") == {"m1"} and made.up("read") == {"m2"}, "m1 up, m2 read")
    return made


def test_its_file_gives_no_reason_to_warn(rig: Rig) -> None:
    argv = [*rig.program, "-c", "-dW", "-f", str(rig.file)]
    done = subprocess.run(argv, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr.decode()


def test_each_address_leads_where_it_should(rig: Rig) -> None:
    assert {rig.greeted() for _ in range(6)} == {"m1"}
    assert {rig.greeted(rig.read) for _ in range(6)} == {"m2"}


def test_who_is_up_changes_in_one_push_and_sessions_to_the_old_one_end(rig: Rig) -> None:
    with rig.connect() as session:
        rig.show("m2", "m3")
        assert rig.up("write") == {"m2"}
        assert ended(session)
    assert rig.greeted() == "m2"


def test_a_client_that_comes_while_nobody_takes_writes_waits_for_the_next(rig: Rig) -> None:
    rig.show()
    waiting = rig.waiting()
    began = time.monotonic()
    rig.show("m2")
    assert [each.result(5) for each in waiting] == ["m2"] * len(waiting)
    assert time.monotonic() - began < 0.9, "let in by the push, not by a time-out or a check"


def test_a_client_waits_no_longer_than_the_bound(rig: Rig) -> None:
    for member in rig.members.values():
        member.role = ""
    rig.show()
    began = time.monotonic()
    assert rig.greeted() == ""
    assert WAIT - 0.5 < time.monotonic() - began < WAIT + 2


def test_a_client_that_meets_a_dead_primary_waits_as_well(rig: Rig) -> None:
    """Before any manager could push: its clients come back in the moment in which it dies."""
    sessions = [rig.connect() for _ in range(8)]
    rig.members["m1"].role = ""
    rig.members["m1"].kill()
    try:
        for session in sessions:
            with session:
                assert ended(session)
        waiting = rig.waiting()
        began = time.monotonic()
        rig.show("m2")
        assert {each.result(5) for each in waiting} == {"m2"}
        assert time.monotonic() - began < 0.9
    finally:
        rig.members["m1"].start()


def test_without_a_manager_checks_find_the_primary(rig: Rig) -> None:
    rig.members["m1"].role, rig.members["m2"].role = "", "primary"
    rig.until(lambda: rig.up("write") == {"m2"}, "checks say m2")
    assert rig.greeted() == "m2"


def test_checks_cannot_outvote_a_manager_that_leads(rig: Rig) -> None:
    rig.members["m3"].role = "primary"
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        rig.show("m1", "m2")
        assert rig.up("write") == {"m1"}
        time.sleep(0.9)


def test_after_a_restart_nobody_reaches_a_replica_for_writes(rig: Rig) -> None:
    """By the checks alone."""
    rig.stop()
    met: list[str] = []
    stop = threading.Event()

    def come() -> None:
        while not stop.is_set():
            with suppress(OSError):
                met.append(rig.greeted())

    comers = [rig.clients.submit(come) for _ in range(4)]
    rig.start()
    rig.until(lambda: "m1" in met, "somebody is let in")
    stop.set()
    for each in comers:
        each.result(10)
    assert set(met) <= {"m1", ""}


def test_two_that_both_say_primary_get_no_clients(rig: Rig) -> None:
    rig.members["m3"].role = "primary"
    rig.until(lambda: rig.up("write") == {"m1", "m3"}, "both are up")
    assert rig.greeted() == ""
    rig.show("m1")
    assert rig.greeted() == "m1"


def test_where_nobody_can_be_read_the_primary_is(rig: Rig) -> None:
    rig.members["m2"].role = ""
    rig.until(lambda: not rig.up("read"), "no replica")
    assert rig.greeted(rig.read) == "m1"
