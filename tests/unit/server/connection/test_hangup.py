"""Connections of another process, shut down from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.clock import SYSTEM_CLOCK
from holdfast.server.connection.hangup import FromReplicas, ToSource, hang_up, hanging_up

CLIENT = """
import socket, sys
made = [socket.socket(int(family)) for family in sys.argv[2].split(",")]
for each in made:
    each.connect(("127.0.0.1" if each.family == 2 else "::ffff:127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
for each in made:
    print(each.recv(1) or "ended", flush=True)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@contextlib.contextmanager
def client(listener: socket.socket, families: str = "2,10") -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", CLIENT, str(port(listener)), families]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "a.name.that.is.not.looked.up"])
def test_whoever_waits_for_an_answer_sees_its_connections_end(
    listener: socket.socket, host: str
) -> None:
    with client(listener) as process:
        assert said(process) == "connected"
        assert hang_up(process.pid, ToSource(host, port(listener), own_port=1)) == 2
        assert [said(process), said(process)] == ["ended", "ended"]


def test_connections_to_elsewhere_and_from_clients_are_left_alone(listener: socket.socket) -> None:
    with client(listener, "2") as process:
        assert said(process) == "connected"
        peer = listener.accept()[0]
        assert hang_up(process.pid, ToSource("127.0.0.2", port(listener), own_port=1)) == 0
        assert hang_up(process.pid, ToSource("127.0.0.1", 1, own_port=2)) == 0
        client_port = peer.getpeername()[1]
        assert (
            hang_up(process.pid, ToSource("127.0.0.1", port(listener), own_port=client_port)) == 0
        )
        peer.send(b"x")
        assert said(process) == "b'x'"
        peer.close()


def test_of_those_who_have_connected_only_the_named_ones_are_hung_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in "ab"]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in made]
        replicas = frozenset({made[1].getsockname()[1]})
        assert hang_up(os.getpid(), FromReplicas(port(listener), replicas)) == 1
        assert made[1].recv(1) == b""
        accepted[0].send(b"x")
        assert made[0].recv(1) == b"x"
        assert hang_up(os.getpid(), FromReplicas(1, replicas)) == 0


def test_whoever_is_not_answered_at_all_stops_connecting(listener: socket.socket) -> None:
    listener.listen(0)
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # a new client finds the queue full: the kernel drops what it sends
            made = stack.enter_context(socket.socket())
            made.setblocking(False)
            made.connect_ex(listener.getsockname())
        process = stack.enter_context(client(listener, "2"))
        end = time.monotonic() + 10
        while not hang_up(process.pid, ToSource("127.0.0.1", port(listener), own_port=1)):
            assert time.monotonic() < end
            assert process.poll() is None
        assert process.wait(5) != 0, "connect() failed"


def test_a_process_that_is_gone_has_no_connections(listener: socket.socket) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert hang_up(process.pid, ToSource("127.0.0.1", port(listener), own_port=1)) is None


def test_what_ends_at_once_is_not_disturbed(listener: socket.socket) -> None:
    asked: list[int] = []

    def pid() -> int:
        asked.append(1)
        return os.getpid()

    source = ToSource("127.0.0.1", port(listener), own_port=1)
    with hanging_up(pid, source, SYSTEM_CLOCK):
        pass
    assert not asked


def test_it_goes_on_until_the_work_is_done(listener: socket.socket) -> None:
    ended = threading.Event()

    def receive() -> None:
        for _ in range(2):  # the second connection is made when the first was lost
            with socket.create_connection(listener.getsockname()) as made:
                made.recv(1)
        ended.set()

    thread = threading.Thread(target=receive)
    source = ToSource("127.0.0.1", port(listener), own_port=1)
    with hanging_up(os.getpid, source, SYSTEM_CLOCK):
        thread.start()
        assert ended.wait(5)
    thread.join()
