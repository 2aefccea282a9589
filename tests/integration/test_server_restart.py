"""A server is restarted by its agent: in order, without an answer that no voter acknowledged; or not at all."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pymysql
import pytest

from holdfast.core.commands import Drain, Promise, Promote, Prove, Restart, SetAcks
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState
from holdfast.http.wire import CommandReply
from tests.integration.test_agent_real import Member


@pytest.fixture(params=list(Flavor), ids=str, scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[list[Member]]:
    with tempfile.TemporaryDirectory(prefix="hf") as folder:  # short: sockets live in it
        made: list[Member] = []
        try:
            made += [Member(Path(folder) / f"m{n}", request.param, n) for n in (1, 2)]
            for each in made:
                each.boot(1)
            yield made
        finally:
            for each in made:
                each.end()


@pytest.fixture
def pair(hosts: list[Member]) -> list[Member]:
    """A primary that waits for its replica; both may have been restarted before."""
    primary, replica = hosts
    replica.do(1, replica.follow(primary))
    primary.do(1, Promote(acks=1, serial=1))
    with closing(primary.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n INT AUTO_INCREMENT PRIMARY KEY)")
    return hosts


class Load:
    """Clients that write until the test ends them, whatever happens to the server."""

    def __init__(self, primary: Member, count: int = 4) -> None:
        self.answered: set[int] = set()
        self._primary = primary
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        while not self._ended.is_set():
            with suppress(pymysql.err.MySQLError, OSError), closing(self._primary.client()) as mine:
                while not self._ended.is_set():
                    with mine.cursor() as cursor:
                        cursor.execute("INSERT INTO t VALUES ()")
                        self.answered.add(int(cursor.lastrowid))
            time.sleep(0.01)

    def wait_for(self, more: int) -> None:
        wanted, end = len(self.answered) + more, time.monotonic() + 15
        while len(self.answered) < wanted:
            assert time.monotonic() < end, "no writes"
            time.sleep(0.01)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def rows(member: Member) -> set[int]:
    with closing(member.client()) as client, client.cursor() as cursor:
        cursor.execute("SELECT n FROM t")
        return {int(row[0]) for row in cursor.fetchall()}


def up_again(member: Member, before: MemberState) -> MemberState:
    return member.until(lambda state: state.up and state.incarnation != before.incarnation)


def pid(member: Member) -> int:
    return int(member.until(lambda state: state.up).incarnation.split("-")[1])


def told(what: str, reply: CommandReply) -> None:
    print(f"{what}: {reply.steps}")


def test_a_replica_is_restarted_with_all_that_it_received(pair: list[Member]) -> None:
    primary, replica = pair
    load = Load(primary)
    try:
        load.wait_for(50)
        primary.do(1, SetAcks(0))
        before = replica.seen().state
        told(f"{replica.flavor} replica", replica.do(1, Restart()))
        after = up_again(replica, before)
    finally:
        load.end()
    assert not after.writable
    assert after.received_set().covers(before.received_set())
    replica.do(1, replica.follow(primary))
    primary.do(1, SetAcks(1))
    primary.do(1, Prove(2))
    replica.do(1, Drain())
    assert load.answered <= rows(replica)


def test_a_primary_is_restarted_under_load_and_has_what_it_answered(pair: list[Member]) -> None:
    primary, replica = pair
    load = Load(primary)
    try:
        load.wait_for(50)
        before = primary.seen().state
        told(f"{primary.flavor} primary", primary.do(1, Restart()))
        replica.do(1, Promise())
        replica.do(1, Drain())
        at_that_moment = set(load.answered)
        assert at_that_moment <= rows(replica)
        after = up_again(primary, before)
        assert not after.writable
        assert not after.semi_sync.source
        assert after.replication.source == ""
        answered = len(load.answered)
        time.sleep(0.3)
        assert len(load.answered) == answered
        replica.do(1, replica.follow(primary))
        primary.do(1, Promote(acks=1, serial=2))
        load.wait_for(20)
    finally:
        load.end()
    replica.do(1, Drain())
    assert load.answered <= rows(primary)
    assert load.answered <= rows(replica)


def test_a_primary_whose_commits_wait_goes_on_as_before(pair: list[Member]) -> None:
    primary, replica = pair
    load = Load(primary)
    try:
        load.wait_for(20)
        os.kill(pid(replica), signal.SIGSTOP)
        primary.until(lambda state: state.semi_sync.waiting > 0)
        answered = set(load.answered)
        begun = time.monotonic()
        reply = primary.ask(1, Restart())
        print(f"{primary.flavor} refused after {time.monotonic() - begun:.2f} s: {reply.message}")
        assert reply.error == "Refused"
        assert "runs on as before" in reply.message
        assert reply.state.writable
        assert load.answered == answered
        os.kill(pid(replica), signal.SIGCONT)
        replica.do(1, replica.follow(primary))  # its acknowledgement may have been lost
        load.wait_for(20)
    finally:
        os.kill(pid(replica), signal.SIGCONT)
        load.end()
    assert reply.state.incarnation == primary.seen().state.incarnation


def test_a_restart_that_a_newer_term_calls_off_leaves_the_primary_open(pair: list[Member]) -> None:
    primary, replica = pair
    load = Load(primary, 2)
    replies: list[CommandReply] = []
    try:
        load.wait_for(5)
        os.kill(pid(replica), signal.SIGSTOP)
        primary.until(lambda state: state.semi_sync.waiting > 0)
        term = primary.seen().state.term
        asking = threading.Thread(target=lambda: replies.append(primary.ask(term, Restart())))
        asking.start()
        primary.until(lambda state: state.busy == "restart")
        time.sleep(0.3)
        primary.ask(term + 1, SetAcks(1))
        asking.join()
        assert replies[0].error == "Refused"
        assert primary.seen().state.writable
        os.kill(pid(replica), signal.SIGCONT)
        replica.do(term + 1, replica.follow(primary))  # its acknowledgement may have been lost
        load.wait_for(5)
    finally:
        os.kill(pid(replica), signal.SIGCONT)
        load.end()


def test_a_replica_that_cannot_apply_is_left_running(hosts: list[Member]) -> None:
    primary, replica = hosts
    term = max(each.seen().state.term for each in hosts)
    replica.do(term, replica.follow(primary))
    primary.do(term, Promote(acks=1, serial=3))
    with closing(primary.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS l (n INT)")
    replica.do(term, Drain())
    with closing(replica.client()) as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES l READ")
        with closing(primary.client()) as client, client.cursor() as other:
            other.execute("INSERT INTO l VALUES (1)")
        reply = replica.ask(term, Restart())
        assert reply.error == "Refused"
        assert "runs on as before" in reply.message
        assert reply.state.replication.source
        assert reply.state.semi_sync.replica
        cursor.execute("UNLOCK TABLES")
    primary.do(term, Prove(4))
