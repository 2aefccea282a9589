"""A source that dies within a transaction: what was half received must cost neither time nor data."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import pymysql
import pytest

from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.server.base import Deadline
from tests.integration.servers import CLIENT, BareServer, bare_servers, proxy, wait_until

ROWS, ROW_BYTES = 30, 200_000
ENOUGH = 2_000_000
"""Bytes of the transaction that arrive: the applier is working on rows of it."""


@pytest.fixture(params=list(Flavor))
def trio(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 3) as servers:
        yield servers


def soon() -> Deadline:
    return Deadline(10)


def count(server: BareServer) -> int:
    return int(server.value("SELECT COUNT(*) FROM app.t"))


def wait_applied(server: BareServer, goal: GtidSet) -> None:
    wait_until(
        lambda: parse(server.flavor, server.adapter.observe(soon()).applied) == goal,
        5,
        "the replica has caught up",
    )


def received(server: BareServer) -> str:
    return server.adapter.observe(soon()).received


@contextmanager
def large_commit(primary: BareServer) -> Iterator[None]:
    """A client commits a large transaction meanwhile; no replica acknowledges it."""

    def commit() -> None:
        with suppress(pymysql.err.MySQLError), closing(primary.connect(CLIENT)) as client:
            client.begin()
            with client.cursor() as cursor:
                for _ in range(ROWS):
                    cursor.execute(f"INSERT INTO app.t (v) VALUES (REPEAT('y', {ROW_BYTES}))")
            client.commit()

    writer = threading.Thread(target=commit)
    writer.start()
    yield
    primary.kill()
    writer.join()


@contextmanager
def half_received(trio: list[BareServer]) -> Iterator[None]:
    """The first server is dead; the second holds half of its last transaction, the third nothing of it."""
    primary, replica, other = trio
    primary.adapter.prepare_primary(1, soon())
    primary.adapter.open(soon())
    with proxy(primary) as way:
        for follower in (replica, other):
            follower.adapter.follow(primary.source(follower, way.port), True, soon())
        primary.adapter.wait_for_ackers(2, soon())
        primary.adapter.prove(1, 1, soon())
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGBLOB)")
        for _ in range(5):
            primary.sql("INSERT INTO app.t (v) VALUES ('small')", account=CLIENT)
        goal = parse(primary.flavor, primary.adapter.observe(soon()).applied)
        for follower in (replica, other):
            wait_applied(follower, goal)
        other.adapter.stop_receiver(soon())
        before = replica.adapter.observe(soon())
        way.stop_after(ENOUGH)
        with large_commit(primary):
            assert way.stopped.wait(10)
            wait_until(lambda: holds_rows(replica), 5, "the applier works on the half transaction")
            assert replica.adapter.observe(soon()).received == before.received
        way.close()
        yield


def holds_rows(server: BareServer) -> bool:
    """Whether a transaction is open that has inserted rows."""
    return bool(server.value("SELECT MAX(trx_rows_modified) FROM information_schema.innodb_trx"))


def test_promotion_does_not_wait_for_the_rest(trio: list[BareServer]) -> None:
    _, replica, _ = trio
    with half_received(trio):
        replica.adapter.stop_receiver(Deadline(2))
        begun = time.monotonic()
        replica.adapter.drain(Deadline(1))
        drained = time.monotonic()
        replica.adapter.prepare_primary(0, Deadline(3))
        ended = time.monotonic()
        print(f"drained in {drained - begun:.3f} s, prepared in {ended - drained:.3f} s")
        assert ended - begun < 1
        time.sleep(0.2)  # InnoDB's table is a copy that is refreshed if it was not read for 0.1 s
        assert not holds_rows(replica)
        replica.adapter.open(soon())
        replica.sql("UPDATE app.t SET v = 'free'", account=CLIENT)
        assert count(replica) == 5


def test_promotion_does_not_wait_after_a_receiver_was_restarted_in_vain(
    trio: list[BareServer],
) -> None:
    primary, replica, _ = trio
    with half_received(trio):
        replica.adapter.stop_receiver(Deadline(2))
        replica.adapter.follow(primary.source(replica), True, soon())  # the source is dead
        replica.adapter.stop_receiver(Deadline(2))
        begun = time.monotonic()
        replica.adapter.prepare_primary(0, Deadline(3))
        print(f"prepared in {time.monotonic() - begun:.3f} s")
        assert time.monotonic() - begun < 1
        assert count(replica) == 5


def test_a_shutdown_does_not_wait_for_the_rest(trio: list[BareServer]) -> None:
    _, replica, _ = trio
    with half_received(trio):
        for step in (
            replica.adapter.stop_receiver,
            replica.adapter.drain,
            replica.adapter.hold_applier,
            replica.adapter.part,
        ):
            step(Deadline(2))
        assert replica.process is not None
        replica.process.terminate()
        replica.process.wait(20)  # MySQL would wait for 60 s


def test_repointing_drops_the_half_and_goes_on(trio: list[BareServer]) -> None:
    _, replica, other = trio
    with half_received(trio):
        replica.adapter.stop_receiver(Deadline(2))
        other.adapter.drain(soon())
        other.adapter.prepare_primary(1, soon())
        begun = time.monotonic()
        replica.adapter.follow(other.source(replica), True, Deadline(3))
        print(f"repointed in {time.monotonic() - begun:.3f} s")
        assert time.monotonic() - begun < 1
        other.adapter.wait_for_ackers(1, soon())
        other.adapter.prove(2, 1, soon())
        other.adapter.open(soon())
        other.sql("INSERT INTO app.t (v) VALUES ('after')", account=CLIENT)
        wait_until(
            lambda: count(replica) == 6, 5, "the replica applies what the new primary writes"
        )
        assert replica.adapter.observe(soon()).replication.error == ""
        time.sleep(0.2)
        assert not holds_rows(replica)


def test_the_same_source_sends_the_whole_again(trio: list[BareServer]) -> None:
    primary, replica, _ = trio
    with half_received(trio):
        primary.start()  # that commits its pending transaction
        with proxy(primary) as way:
            replica.adapter.follow(primary.source(replica, way.port), True, Deadline(3))
            wait_until(lambda: count(replica) == 5 + ROWS, 8, "the whole transaction is applied")
            assert replica.adapter.observe(soon()).replication.error == ""
