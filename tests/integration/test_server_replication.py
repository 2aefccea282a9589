"""Real servers follow, repoint, promote, and keep what they have received."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import Receiver
from holdfast.errors import CalledOff, DeadlinePassed, Refused, Unreachable
from holdfast.server.base import Deadline
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until


@pytest.fixture(params=list(Flavor))
def flavor(request: pytest.FixtureRequest) -> Flavor:
    found: Flavor = request.param
    return found


@pytest.fixture
def server(flavor: Flavor) -> Iterator[BareServer]:
    with bare_servers(flavor, 1) as (made,):
        yield made


@pytest.fixture
def pair(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as servers:
        yield servers


@pytest.fixture
def trio(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 3) as servers:
        yield servers


def soon() -> Deadline:
    return Deadline(8)


def make_primary(primary: BareServer, *replicas: BareServer) -> None:
    """``primary`` opens once all ``replicas`` acknowledge, and needs one."""
    primary.adapter.prepare_primary(1, soon())
    for replica in replicas:
        replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.wait_for_ackers(len(replicas), soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())


def write(server: BareServer, text: str = "x") -> None:
    server.sql(
        "CREATE TABLE IF NOT EXISTS app.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)",
        f"INSERT INTO app.t (v) VALUES ('{text}')",
        account=CLIENT,
    )


def count(server: BareServer) -> int:
    return int(server.value("SELECT COUNT(*) FROM app.t"))


def has_caught_up(replica: BareServer, primary: BareServer) -> bool:
    goal = primary.adapter.observe(soon()).applied
    seen = replica.adapter.observe(soon())
    return parse(replica.flavor, seen.applied) == parse(primary.flavor, goal)


def has_all_of(server: BareServer, other: BareServer) -> bool:
    seen, wanted = (
        parse(each.flavor, each.adapter.observe(soon()).applied) for each in (server, other)
    )
    return seen.contains(wanted)


def caught_up(replica: BareServer, primary: BareServer) -> None:
    wait_until(lambda: has_caught_up(replica, primary), 5, "the replica has caught up")


def test_a_fresh_server_is_read_only_and_follows_nobody(server: BareServer) -> None:
    seen = server.adapter.observe(soon())
    assert not seen.writable
    assert seen.received == seen.applied == ""
    assert seen.replication.source == ""
    assert not seen.semi_sync.source
    assert not seen.semi_sync.replica
    assert seen.server_id == 1


def test_a_primary_and_its_replicas_are_observed_as_they_are(trio: list[BareServer]) -> None:
    primary, voter, learner = trio
    make_primary(primary, voter)
    learner.adapter.follow(primary.source(learner), False, soon())
    write(primary)
    caught_up(voter, primary)
    caught_up(learner, primary)

    at_source = primary.adapter.observe(soon())
    assert at_source.writable
    assert (at_source.semi_sync.source, at_source.semi_sync.acks) == (True, 1)
    assert at_source.semi_sync.clients == 1
    assert at_source.replication.source == ""
    assert primary.value("SELECT @@global.sync_binlog") == 1
    assert primary.value("SELECT @@global.innodb_flush_log_at_trx_commit") == 1

    for replica, semi_sync in ((voter, True), (learner, False)):
        seen = replica.adapter.observe(soon())
        assert not seen.writable
        assert seen.semi_sync.replica is semi_sync
        assert seen.replication.source == f"127.0.0.1:{primary.port}"
        assert seen.replication.receiver is Receiver.ON
        assert seen.replication.applier
        assert seen.replication.error == ""
        assert seen.replication.lag_seconds == 0
        assert parse(replica.flavor, seen.received) == parse(replica.flavor, at_source.applied)
        assert replica.value("SELECT @@global.innodb_flush_log_at_trx_commit") == 2


def test_following_again_changes_nothing(pair: list[BareServer]) -> None:
    primary, replica = pair
    make_primary(primary, replica)
    for _ in range(2):
        replica.adapter.follow(primary.source(replica), True, soon())
    write(primary)
    caught_up(replica, primary)

    replica.adapter.stop_receiver(soon())
    replica.adapter.stop_receiver(soon())
    assert replica.adapter.observe(soon()).replication.receiver is Receiver.OFF
    replica.adapter.follow(primary.source(replica), True, soon())
    write(primary)
    caught_up(replica, primary)


def test_only_a_voter_acknowledges(pair: list[BareServer]) -> None:
    primary, replica = pair
    make_primary(primary, replica)

    replica.adapter.follow(primary.source(replica), False, soon())
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(1, 2, Deadline(0.6))

    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.prove(1, 3, soon())


def test_a_proof_that_waits_does_not_hold_up_looking_or_the_next_proof(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    make_primary(primary, replica)
    replica.adapter.stop_receiver(soon())

    for serial in (2, 3, 4):
        with pytest.raises(DeadlinePassed):
            primary.adapter.prove(1, serial, Deadline(0.6))
        begun = time.monotonic()
        primary.adapter.observe(Deadline(1))
        assert time.monotonic() - begun < 0.5

    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.prove(1, 5, soon())
    serials = [row["serial"] for row in primary.sql("SELECT serial FROM holdfast.proof ORDER BY 1")]
    assert serials == [1, 2, 3, 4, 5]
    caught_up(replica, primary)


def test_a_read_only_primary_proves_and_clients_cannot_write_before_it_opens(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    primary.adapter.prepare_primary(1, soon())
    with pytest.raises(DeadlinePassed):
        primary.adapter.wait_for_ackers(1, Deadline(0.1))
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(7, 1, Deadline(0.6))
    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.adapter.prove(7, 2, soon())
    with pytest.raises(Exception, match="read-only"):
        write(primary)
    primary.adapter.open(soon())
    primary.adapter.open(soon())
    write(primary)


def test_a_chain_of_promotions_loses_nothing(trio: list[BareServer]) -> None:
    make_primary(trio[0], trio[1], trio[2])
    for turn in range(3):
        old, new, other = (trio[(turn + n) % 3] for n in range(3))
        write(old, f"turn {turn}")
        old.kill()
        for survivor in (new, other):
            survivor.adapter.stop_receiver(soon())
            survivor.adapter.drain(soon())
        if not has_all_of(new, other):  # one of them has acknowledged, perhaps only the other
            new, other = other, new
        for _ in range(2):
            new.adapter.prepare_primary(1, soon())
        other.adapter.follow(new.source(other), True, soon())
        new.adapter.wait_for_ackers(1, soon())
        new.adapter.prove(turn + 2, 1, soon())
        new.adapter.open(soon())
        assert count(new) == turn + 1
        # the old one had no pending transactions, so it can come back as it is
        old.start()
        old.adapter.follow(new.source(old), True, soon())
        write(new, f"after turn {turn}")
        new.sql(f"DELETE FROM app.t WHERE v = 'after turn {turn}'", account=CLIENT)
        caught_up(old, new)
        caught_up(other, new)
        trio[(turn + 1) % 3], trio[(turn + 2) % 3] = new, other
        assert old.adapter.observe(soon()).replication.error == ""


def test_a_restarted_replica_follows_the_same_source_again(pair: list[BareServer]) -> None:
    primary, replica = pair
    make_primary(primary, replica)
    write(primary)
    caught_up(replica, primary)
    replica.restart()
    assert not replica.adapter.observe(soon()).replication.applier
    replica.adapter.follow(primary.source(replica), True, soon())
    write(primary)
    caught_up(replica, primary)
    assert replica.adapter.observe(soon()).semi_sync.replica


def test_repointing_applies_what_was_received_first(trio: list[BareServer]) -> None:
    primary, replica, other = trio
    make_primary(primary, replica, other)
    write(primary)
    caught_up(replica, primary)
    with replica.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t READ")
        write(primary, "received, not applied")
        primary.kill()
        other.adapter.stop_receiver(soon())
        other.adapter.drain(soon())
        other.adapter.prepare_primary(0, soon())
        behind = replica.adapter.observe(soon())
        assert behind.received != behind.applied
        repointed = threading.Thread(
            target=replica.adapter.follow, args=(other.source(replica), True, soon())
        )
        repointed.start()
        time.sleep(0.1)
        cursor.execute("UNLOCK TABLES")
        repointed.join()
    caught_up(replica, other)
    assert count(replica) == 2


def test_draining_says_why_when_the_applier_is_broken(trio: list[BareServer]) -> None:
    primary, replica, _ = trio
    make_primary(primary, replica)
    write(primary)
    caught_up(replica, primary)
    replica.sql(
        *(["SET GLOBAL super_read_only = 0"] if replica.flavor is Flavor.MYSQL else []),
        "SET sql_log_bin = 0",
        "DROP TABLE app.t",
    )
    primary.sql("INSERT INTO app.t (v) VALUES ('nowhere')", account=CLIENT)
    wait_until(
        lambda: not replica.adapter.observe(soon()).replication.applier, 5, "the applier stopped"
    )
    assert "app.t" in replica.adapter.observe(soon()).replication.error
    replica.adapter.stop_receiver(soon())
    with pytest.raises(Refused, match=r"app\.t"):
        replica.adapter.drain(soon())
    with pytest.raises(Refused, match=r"app\.t"):
        replica.adapter.prepare_primary(1, soon())
    with pytest.raises(Refused, match=r"app\.t"):
        replica.adapter.follow(trio[2].source(replica), True, soon())


def test_draining_does_not_outlast_its_deadline_or_a_newer_term(pair: list[BareServer]) -> None:
    primary, replica = pair
    make_primary(primary, replica)
    write(primary)
    caught_up(replica, primary)
    with replica.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t READ")
        write(primary)
        replica.adapter.stop_receiver(soon())
        with pytest.raises(DeadlinePassed):
            replica.adapter.drain(Deadline(0.3))
        begun = time.monotonic()
        with pytest.raises(CalledOff):
            replica.adapter.drain(Deadline(5, lambda: time.monotonic() > begun + 0.2))
        assert time.monotonic() - begun < 2.5
        cursor.execute("UNLOCK TABLES")
    replica.adapter.drain(soon())


def test_a_writable_server_or_one_with_waiting_commits_is_not_turned_into_a_replica(
    trio: list[BareServer],
) -> None:
    primary, replica, other = trio
    make_primary(primary, replica)
    with pytest.raises(Refused, match="writable"):
        primary.adapter.follow(other.source(primary), True, soon())
    other.adapter.prepare_primary(1, soon())
    with pytest.raises(DeadlinePassed):
        other.adapter.prove(1, 1, Deadline(0.6))
    with pytest.raises(Refused, match="wait for an acknowledgement"):
        other.adapter.follow(primary.source(other), True, soon())


def test_a_replica_neither_opens_nor_proves(pair: list[BareServer]) -> None:
    primary, replica = pair
    make_primary(primary, replica)
    with pytest.raises(Refused, match="follows"):
        replica.adapter.open(soon())
    with pytest.raises(Refused, match="follows"):
        replica.adapter.prove(1, 1, soon())
    with pytest.raises(Refused, match="still receives"):
        replica.adapter.prepare_primary(1, soon())


def test_acks_are_set_on_a_live_primary(trio: list[BareServer], flavor: Flavor) -> None:
    primary, replica, other = trio
    make_primary(primary, replica, other)
    primary.adapter.set_acks(0, soon())
    assert primary.adapter.observe(soon()).semi_sync.acks == 0
    if flavor is Flavor.MARIADB:
        with pytest.raises(Refused, match="MariaDB"):
            primary.adapter.set_acks(2, soon())
        primary.adapter.set_acks(1, soon())
    else:
        primary.adapter.set_acks(2, soon())
        assert primary.adapter.observe(soon()).semi_sync.acks == 2
    primary.adapter.prove(1, 2, soon())


def test_a_server_that_died_is_unreachable_and_comes_back(server: BareServer) -> None:
    server.adapter.observe(soon())
    server.kill()
    with pytest.raises(Unreachable):
        server.adapter.observe(soon())
    with pytest.raises(Unreachable):
        server.adapter.ping(soon())
    server.start()
    server.adapter.observe(soon())
    server.adapter.stop_receiver(soon())


def test_a_relay_log_that_is_being_read_by_position_is_left_so_by_nobody() -> None:
    """MariaDB reads so, to keep the relay log, where both threads are started; that may be interrupted, and the server
    killed.

    The position in its file is older than its data then: what is read from there was logged already.
    """
    with bare_servers(Flavor.MARIADB, 2) as (primary, replica):
        replica.adapter.follow(primary.source(replica), True, soon())
        make_primary(primary, replica)
        primary.adapter.open(soon())
        primary.sql("CREATE TABLE app.by_file (n INT PRIMARY KEY)")
        replica.adapter.drain(soon(), primary.adapter.observe(soon()).applied)
        for killed, row in ((False, 1), (True, 2)):
            replica.sql("STOP REPLICA SQL_THREAD")
            primary.sql(f"INSERT INTO app.by_file VALUES ({row})")
            wait_until(
                lambda: replica.adapter.observe(soon()).received.endswith(
                    primary.adapter.observe(soon()).applied
                ),
                5,
                "it is received",
            )
            replica.sql("STOP REPLICA")
            (status,) = replica.sql("SHOW REPLICA STATUS")
            place = f"'{status['Relay_Log_File']}', relay_log_pos = {status['Relay_Log_Pos']}"
            by_file = f"CHANGE MASTER TO master_use_gtid = no, relay_log_file = {place}"
            replica.sql(by_file)
            if killed:
                replica.sql("START REPLICA SQL_THREAD")
                wait_until(
                    lambda: replica.value("SELECT COUNT(*) FROM app.by_file") == 2, 5, "applied"
                )
                replica.sql("STOP REPLICA SQL_THREAD", by_file)
                replica.restart()
            replica.adapter.follow(primary.source(replica), True, soon())
            (status,) = replica.sql("SHOW REPLICA STATUS")
            assert status["Using_Gtid"] == "Slave_Pos"
            replica.adapter.drain(soon(), primary.adapter.observe(soon()).applied)
            assert replica.value("SELECT COUNT(*) FROM app.by_file") == row
            assert not replica.sql("SHOW REPLICA STATUS")[0]["Last_SQL_Error"]
