"""What agents report of a source that is silent or gone, and of their own server; a promise does not wait for
either."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pymysql
import pytest

from holdfast.core.commands import Fence, Follow, Promise, Promote
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Receiver
from tests.integration import servers
from tests.integration.test_agent_real import Member

pytestmark = pytest.mark.alone

QUICKLY = 0.4
"""Some 40 ms, except on a busy machine; a receiver that waits for its time-out takes more than a second."""


class Pair:
    """:ivar term: of the last command"""

    def __init__(self, folder: Path, flavor: Flavor) -> None:
        self.primary = Member(folder / "m1", flavor, 1)
        self.replica = Member(folder / "m2", flavor, 2)
        self.term = 0

    def whole(self) -> None:
        """m1 is primary, m2 its voter."""
        self.term += 1
        for each in (self.primary, self.replica):
            if not each.seen().state.up:
                each.boot(self.term)
        state = self.primary.seen().state
        if not state.writable:
            self.primary.do(self.term, Promote(acks=0, serial=1))
        self.replica.do(self.term, Follow("m1", "127.0.0.1", self.primary.port, True))
        self.replica.until(
            lambda state: state.replication.receiver is Receiver.ON and not state.reason
        )

    def promise(self) -> MemberState:
        self.term += 1
        begun = time.monotonic()
        reply = self.replica.do(self.term, Promise())
        seconds = time.monotonic() - begun
        print(f"promise: {1000 * seconds:.0f} ms, {reply.steps}")
        assert reply.state.replication.receiver is Receiver.OFF
        assert seconds < QUICKLY
        return reply.state

    def signal(self, number: int) -> None:
        """Send a signal to the primary's server."""
        incarnation = self.primary.seen().state.incarnation
        os.kill(int(incarnation.split("-")[1]), number)

    def end(self) -> None:
        with suppress(ProcessLookupError, IndexError):
            self.signal(signal.SIGCONT)
        self.primary.end()
        self.replica.end()


@pytest.fixture(scope="module")
def made(flavor: Flavor) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        pair = Pair(Path(folder), flavor)
        try:
            yield pair
        finally:
            pair.end()


@pytest.fixture
def pair(made: Pair) -> Pair:
    """Whole, whatever a failed test has left."""
    with suppress(ProcessLookupError, IndexError):
        made.signal(signal.SIGCONT)
    made.whole()
    return made


def unheard(member: Member) -> float:
    return member.seen().state.replication.unheard


def test_a_source_that_has_nothing_to_send_is_heard_all_the_same(pair: Pair) -> None:
    before = pair.replica.seen().version
    longest = 0.0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        longest = max(longest, unheard(pair.replica))
        time.sleep(0.02)
    print(f"longest silence: {longest:.2f} s")
    assert longest < 0.7
    assert pair.replica.seen().version - before <= 2, "nobody was bothered with it"


def test_a_frozen_server_is_told_by_its_agent_and_by_its_replica(pair: Pair) -> None:
    begun = time.monotonic()
    pair.signal(signal.SIGSTOP)
    told: dict[str, float] = {}
    version: int | None = None
    while len(told) < 2:
        seen = pair.replica.seen(version, 0.2)
        version = seen.version
        now = time.monotonic() - begun
        assert seen.state.replication.unheard <= now + 0.4, "heartbeats of before it froze count"
        if seen.state.replication.unheard >= 1:
            told.setdefault("its replica", now)
        if pair.primary.seen().state.silent_seconds >= 1:
            told.setdefault("its agent", time.monotonic() - begun)
        assert now < 5
    print(f"silent for 1 s, as told by {told}")
    assert max(told.values()) < 1.8
    state = pair.promise()
    kept = state.replication.unheard
    assert kept >= 1
    time.sleep(0.6)
    assert unheard(pair.replica) == kept, "a receiver that was stopped misses nothing"
    pair.signal(signal.SIGCONT)
    pair.primary.until(lambda state: state.silent_seconds == 0)
    pair.whole()
    pair.replica.until(lambda state: state.replication.unheard == 0)


def test_a_promise_does_not_wait_for_a_source_that_answers_nothing(pair: Pair) -> None:
    pair.signal(signal.SIGSTOP)
    pair.promise()
    pair.signal(signal.SIGCONT)
    pair.whole()
    pair.signal(signal.SIGSTOP)
    pair.replica.until(lambda state: state.replication.receiver is Receiver.CONNECTING, 5)
    time.sleep(0.1)
    assert not pair.replica.seen().state.replication.refused
    pair.promise()
    pair.signal(signal.SIGCONT)


def test_neither_a_promise_nor_another_source_waits_for_one_that_packets_do_not_reach(
    pair: Pair,
) -> None:
    with ExitStack() as stack:
        nowhere = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = nowhere.getsockname()
        for _ in range(3):  # a new client finds the queue full: the kernel drops what it sends
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        lost = Follow("m3", "127.0.0.1", address[1], True)
        pair.replica.do(pair.term, lost)
        pair.replica.until(lambda state: state.replication.receiver is Receiver.CONNECTING)
        pair.promise()
        pair.replica.do(pair.term, lost)
        time.sleep(0.1)
        begun = time.monotonic()
        pair.replica.do(pair.term, Follow("m1", "127.0.0.1", pair.primary.port, True))
        pair.replica.until(lambda state: state.replication.receiver is Receiver.ON)
        seconds = time.monotonic() - begun
    print(f"repointed and connected in {1000 * seconds:.0f} ms")
    assert seconds < 2 * QUICKLY


def test_a_source_whose_process_is_gone_refuses(pair: Pair) -> None:
    assert not pair.replica.seen().state.replication.refused
    pair.term += 1
    pair.primary.do(pair.term, Fence())
    begun = time.monotonic()
    pair.replica.until(lambda state: state.replication.refused, 5)
    print(f"refused, as told after {time.monotonic() - begun:.2f} s")
    pair.whole()
    assert not pair.replica.seen().state.replication.refused


def test_a_server_without_free_connections_is_alive(pair: Pair) -> None:
    member = pair.primary
    with closing(admin(member)) as first, ExitStack() as stack:
        cursor = first.cursor()
        cursor.execute("SET GLOBAL max_connections = 12")
        try:
            with suppress(pymysql.err.MySQLError):
                for _ in range(20):
                    stack.enter_context(closing(member.client()))
            with pytest.raises(pymysql.err.MySQLError, match=r"[Tt]oo many connections"):
                member.client()
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert_well(member.seen().state)
                time.sleep(0.02)
            cursor.execute("SELECT CONNECTION_ID()")
            own = cursor.fetchall()[0][0]
            cursor.execute("SHOW PROCESSLIST")
            for row in cursor.fetchall():
                if row[1] == servers.ADMIN.user and row[0] != own:
                    with suppress(pymysql.err.MySQLError):
                        cursor.execute(f"KILL {row[0]}")
            with suppress(pymysql.err.MySQLError):
                for _ in range(20):  # new clients
                    stack.enter_context(closing(member.client()))
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                state = member.seen().state
                assert state.up
                assert state.silent_seconds == 0
                time.sleep(0.02)
        finally:
            stack.close()
            cursor.execute("SET GLOBAL max_connections = 500")
    member.until(lambda state: state.reason == "")


def assert_well(state: MemberState) -> None:
    assert state.up
    assert state.reason == "" or state.reason.startswith("clients hold all connections")
    assert state.silent_seconds == 0


def admin(member: Member) -> pymysql.Connection[pymysql.cursors.Cursor]:
    account = servers.ADMIN
    return pymysql.connect(
        unix_socket=str(member.folder / "s"),
        user=account.user,
        password=account.password,
        autocommit=True,
    )
