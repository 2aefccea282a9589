"""What a server has received survives a stop by hand, and numbers that were cut are never used again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pymysql
import pytest

from holdfast.binlog.events.gtid_event import Gtid
from holdfast.binlog.pending import tail
from holdfast.core.gtid import SEQUENCE_STEP, Flavor, parse
from holdfast.server.base import Deadline
from tests.integration.servers import BareServer, bare_servers, wait_until


@pytest.fixture(params=list(Flavor))
def pair(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 2) as servers:
        yield servers


def soon() -> Deadline:
    return Deadline(8)


def promote(primary: BareServer, replica: BareServer) -> None:
    primary.adapter.prepare_primary(1, soon())
    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())


def received(replica: BareServer) -> str:
    return replica.adapter.observe(soon()).received


@pytest.mark.parametrize("again", [True, False], ids=["the same source", "another source"])
def test_following_after_both_threads_were_stopped_drops_nothing(
    pair: list[BareServer], again: bool
) -> None:
    """An operator stopped applier and receiver, and the source dies: the rest is only in the relay log."""
    primary, replica = pair
    promote(primary, replica)
    primary.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    wait_until(
        lambda: (
            bool(replica.adapter.observe(soon()).applied)
            and bool(replica.sql("SHOW TABLES FROM app LIKE 't'"))
        ),
        5,
        "the table is there",
    )
    replica.sql("STOP REPLICA SQL_THREAD")
    for number in range(20):
        primary.sql(f"INSERT INTO app.t VALUES ({number})")
    has = parse(primary.flavor, primary.adapter.observe(soon()).applied)
    wait_until(lambda: parse(replica.flavor, received(replica)).covers(has), 5, "all is received")
    replica.sql("STOP REPLICA IO_THREAD")
    assert replica.value("SELECT COUNT(*) FROM app.t") == 0
    primary.kill()
    port = primary.port if again else 1  # where nothing listens
    replica.adapter.follow(primary.source(replica, port), False, soon())
    replica.adapter.drain(soon())
    assert replica.value("SELECT COUNT(*) FROM app.t") == 20


def test_what_a_replica_applied_is_not_cut_from_its_binlog(pair: list[BareServer]) -> None:
    """The primary's commit waits; a replica that does not acknowledge has applied it, and is killed."""
    primary, replica = pair
    promote(primary, replica)
    primary.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    kept = parse(primary.flavor, primary.adapter.observe(soon()).applied)
    replica.adapter.follow(primary.source(replica), False, soon())
    waiting = threading.Thread(target=lost_insert, args=(primary,))
    waiting.start()
    wait_until(
        lambda: not kept.contains(parse(replica.flavor, replica.adapter.observe(soon()).applied)),
        5,
        "the replica has applied what waits",
    )
    primary.kill()
    replica.kill()
    waiting.join(5)

    def has(gtid: Gtid) -> bool:
        return kept.has(gtid.stream, gtid.sequence)

    index = replica.datadir / "binlog.index"
    found = tail.inspect(index, has)
    assert isinstance(found, tail.Unsafe)
    assert "was applied from another server" in found.reason
    own = tail.inspect(primary.datadir / "binlog.index", has)
    assert isinstance(own, tail.Pending)
    assert own.summary.transactions == 1


def lost_insert(primary: BareServer) -> None:
    with suppress(pymysql.err.MySQLError):
        primary.sql("INSERT INTO app.t VALUES (1)")


def test_a_server_that_was_restarted_follows_at_once(pair: list[BareServer]) -> None:
    """It does not wait for anything that its relay log no longer has."""
    primary, replica = pair
    promote(primary, replica)
    primary.sql("CREATE TABLE app.t (id INT PRIMARY KEY)")
    replica.sql("STOP REPLICA SQL_THREAD")
    primary.sql("INSERT INTO app.t VALUES (1)")
    replica.restart()
    replica.adapter.follow(primary.source(replica), False, Deadline(4))
    wait_until(lambda: bool(replica.sql("SHOW TABLES FROM app LIKE 't'")), 5, "the table is there")
    wait_until(lambda: replica.value("SELECT COUNT(*) FROM app.t") == 1, 5, "the row is there")


def test_a_promoted_server_numbers_beyond_what_can_have_been_cut(pair: list[BareServer]) -> None:
    primary, replica = pair
    promote(primary, replica)
    old = primary.adapter.observe(soon())
    wait_until(
        lambda: parse(replica.flavor, received(replica)) == parse(primary.flavor, old.applied),
        5,
        "all is received",
    )
    primary.kill()
    replica.adapter.stop_receiver(soon())
    replica.adapter.drain(soon())
    replica.adapter.prepare_primary(0, soon())
    replica.adapter.prove(2, 2, soon())
    replica.adapter.open(soon())
    replica.sql("CREATE TABLE app.later (id INT)")
    new = replica.adapter.observe(soon())
    issued = parse(replica.flavor, new.applied).subtract(parse(primary.flavor, old.applied))
    if replica.flavor is Flavor.MYSQL:
        assert all(stream == new.origin for stream in issued.streams)
        assert new.origin != old.origin
    else:
        head = int(parse(primary.flavor, old.applied).last().split("-")[2])
        first = (head // SEQUENCE_STEP + 1) * SEQUENCE_STEP
        assert issued.last() == f"0-{new.server_id}-{first + 1}"
        gtids = [row["Info"] for row in replica.sql("SHOW BINLOG EVENTS IN 'binlog.000001'")]
        assert any(f"0-{new.server_id}-{first}" in str(info) for info in gtids)
