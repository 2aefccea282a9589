"""A lease on real servers: how soon after its end the server stops answering, and who upholds it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pymysql
import pytest

from holdfast.agent.runtime import boottime
from holdfast.core.commands import Promise, Promote
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Electorate, LeaseHolder, Protection, Quorum
from holdfast.core.timing import FENCE_SECONDS
from holdfast.core.view import ServerStatus
from holdfast.http.wire import Grant, StateReply, WatchRequest
from tests.integration.test_agent_real import Member, hosts, one_primary, write

pytestmark = pytest.mark.alone

LEASE = 3.0
"""Longer than usual: the test grants from a process that reads as fast as it can."""
BUSY_SECONDS = 0.2
"""What a fully loaded machine may add: a client too has to wait for a processor to see what arrived when."""
TAKEN_DOWN_SECONDS = 5.0
"""A killed process answers nothing; the kernel takes a while to free its memory."""
READERS = 4


@pytest.fixture(params=list(Flavor), ids=str)
def flavor(request: pytest.FixtureRequest) -> Flavor:
    flavor: Flavor = request.param
    return flavor


@pytest.fixture
def members(flavor: Flavor) -> Iterator[list[Member]]:
    """m1 is an open primary, the others are its voters; there is no lease yet."""
    with hosts(flavor, 3) as made:
        one_primary(made)
        yield made


@pytest.fixture
def alone(flavor: Flavor) -> Iterator[Member]:
    """An open primary whose commits wait for no other."""
    with hosts(flavor, 1) as made:
        made[0].boot(1)
        made[0].do(1, Promote(acks=0, serial=1))
        with closing(made[0].client()) as client, client.cursor() as cursor:
            cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)")
        yield made[0]


def electorate(members: list[Member], need: int = 1) -> Electorate:
    first, *others = members
    nobody = {"m9": "http://127.0.0.1:9"}
    agents = {f"m{each.number}": str(each.http.base_url) for each in others}
    quorum = Quorum(tuple(agents or nobody), need)
    return Electorate(
        "m1", 1, 1, (quorum,), agents or nobody, f"127.0.0.1:{first.port}", settled=True
    )


def grant(member: Member, known: Electorate) -> float:
    """Grant a lease; returns when it ends, on the clock of leases."""
    reply = member.seen()
    given = Grant(run=reply.run, until=reply.clock + LEASE, lease=LEASE, term=1, electorate=known)
    body = WatchRequest(grant=given).model_dump_json()
    StateReply.model_validate_json(member.http.post("/v1/watch", content=body).content)
    return given.until


@contextmanager
def loaded(busy: bool) -> Iterator[None]:
    """Twice as many processes as there are processors keep them busy."""
    count = 2 * (os.cpu_count() or 1) if busy else 0
    spin = (sys.executable, "-c", "while True: pass")
    spinning = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()


class Readers:
    """Clients that read without a pause until they are cut off.

    :ivar last: when the last answer came
    """

    def __init__(self, member: Member) -> None:
        self.last = 0.0
        self._threads = [
            threading.Thread(target=self._read, args=(member.client(),)) for _ in range(READERS)
        ]
        for each in self._threads:
            each.start()

    def _read(self, client: pymysql.Connection[Any]) -> None:
        with suppress(pymysql.Error), client.cursor() as cursor:
            while True:
                cursor.execute("SELECT COUNT(*) FROM t")
                self.last = max(self.last, boottime.now())
        with suppress(pymysql.Error):
            client.close()

    def join(self) -> None:
        for each in self._threads:
            each.join(20)


class Granting:
    """A manager that only grants leases.

    :ivar until: when the last lease that it granted ends
    """

    def __init__(self, member: Member) -> None:
        known = electorate([member])
        self.until = grant(member, known)
        self._ended = threading.Event()

        def go_on() -> None:
            while not self._ended.wait(LEASE / 5):
                self.until = grant(member, known)

        self._thread = threading.Thread(target=go_on)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def death(member: Member, granting: Granting) -> tuple[float, float]:
    """How long after the end of its lease the server was dead, and the last answer came: seconds."""
    running = os.pidfd_open(int(member.seen().state.incarnation.split("-")[1]))
    readers = Readers(member)
    time.sleep(LEASE / 3)
    granting.end()
    poll = select.poll()
    poll.register(running, select.POLLIN)
    assert poll.poll(20_000)
    died = boottime.now()
    os.close(running)
    readers.join()
    return died - granting.until, readers.last - granting.until


def test_after_the_end_of_its_lease_a_server_answers_nobody(
    alone: Member, capsys: pytest.CaptureFixture[str]
) -> None:
    write(alone, 1, 2, 3)
    rounds = int(os.environ.get("ROUNDS", "1"))
    for busy in (False, True):
        figures = []
        with loaded(busy):
            for _ in range(rounds):
                granting = Granting(alone)
                alone.do(1, Promote(acks=0, serial=1, electorate=electorate([alone])))
                figures.append(death(alone, granting))
                state = alone.until(lambda state: state.server is ServerStatus.DOWN)
                assert "its lease is over" in state.reason
                alone.boot(1)
        with capsys.disabled():
            dead = sorted(round(after * 1000) for after, _ in figures)
            answers = sorted(round(last * 1000, 1) for _, last in figures)
            load = "busy" if busy else "idle"
            print(
                f"\n{alone.flavor}, {load}, ms after the lease: dead {dead}, last answer {answers}"
            )
        for after, last in figures:
            assert -0.001 <= after < TAKEN_DOWN_SECONDS
            assert last < FENCE_SECONDS + BUSY_SECONDS


def test_without_a_manager_voters_uphold_their_primary_until_they_promise(
    members: list[Member],
) -> None:
    first, *others = members
    grant(first, electorate(members))
    first.until(lambda state: state.lease.by is LeaseHolder.PEERS)
    end = time.monotonic() + 1.5 * LEASE
    number = 0
    while time.monotonic() < end:
        number += 1
        write(first, number)
        assert first.seen().state.lease.by is LeaseHolder.PEERS
    over = []
    for each in others:
        promised = each.do(2, Promise()).state
        over.append(boottime.now() + promised.vouched)
    assert 0 < max(over) - boottime.now() <= LEASE + 3 * FENCE_SECONDS
    state = first.until(lambda state: not state.up)
    assert boottime.now() < max(over) + BUSY_SECONDS
    assert "none of m2, m3 confirmed it" in state.reason or "only" in state.reason


def test_an_agent_that_hangs_costs_nothing_and_its_server_still_ends_with_its_lease(
    members: list[Member],
) -> None:
    """Its keeper process has the voters uphold the lease, and kills the server once they have promised."""
    first, *others = members
    grant(first, electorate(members))
    server = os.pidfd_open(int(first.seen().state.incarnation.split("-")[1]))
    assert Protection.KEEPER in first.seen().state.protections
    agent = first.agent
    assert agent is not None
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        end = time.monotonic() + 2.5 * LEASE
        number = 0
        while time.monotonic() < end:
            number += 1
            write(first, number)
            time.sleep(0.05)
        asked = others[0].seen().state.asked
        assert asked is not None
        assert asked.address == f"127.0.0.1:{first.port}"
        assert asked.seconds < LEASE
        over = []
        for each in others:
            promised = each.do(2, Promise()).state
            over.append(boottime.now() + promised.vouched)
        poll = select.poll()
        poll.register(server, select.POLLIN)
        assert poll.poll(2 * LEASE * 1000)
        assert boottime.now() < max(over) + TAKEN_DOWN_SECONDS
    finally:
        os.kill(agent.pid, signal.SIGCONT)
        os.close(server)
    first.until(lambda state: not state.up)
