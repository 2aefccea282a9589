"""An operator's act takes from a member what it has acknowledged, or its history: another's vote counts, and it is
cloned."""

from __future__ import annotations

import time
from contextlib import closing, suppress

import pymysql
import pytest
from pymysql.cursors import Cursor

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.servers import server_of
from tests.integration.cluster import (
    admin,
    assert_identical,
    member_of,
    replicas,
    wait_failed_over,
    writing,
)

SECONDS = 20.0
FILTER = {
    Flavor.MARIADB: "SET GLOBAL replicate_ignore_db = 'app'",
    Flavor.MYSQL: "CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (app)",
}


def pid_of(cluster: Sandbox, member: str) -> int:
    """Of its server; 0: it does not run."""
    running = server_of(cluster.spec.member(member))
    return running.pid if running else 0


def set_filter(cluster: Sandbox, member: str) -> None:
    """The cluster may start the applier at any moment: then the server refuses the filter."""
    filtering = (
        "STOP REPLICA SQL_THREAD",
        FILTER[cluster.spec.flavor],
        "START REPLICA SQL_THREAD",
    )
    for last in (*[False] * 20, True):
        try:
            admin(cluster, member, *filtering)
            return
        except pymysql.err.MySQLError:
            if last:
                raise


def test_one_that_leaves_something_out_votes_again_when_it_was_cloned(
    cluster: Sandbox, run: int
) -> None:
    voter = replicas(cluster.wait_whole())[0]
    run_before = pid_of(cluster, voter)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        set_filter(cluster, voter)
        cluster.wait_until(
            lambda status: "leaves something out" in member_of(status, voter)["reason"],
            SECONDS,
            "it is told",
        )
        cluster.wait_whole()
        writers.wait_for(50)
        writers.check()
    assert pid_of(cluster, voter) != run_before
    assert_identical(cluster)


def test_a_primary_that_dies_after_a_hand_has_lowered_its_flushing_comes_back_with_all_that_it_says(
    cluster: Sandbox, run: int
) -> None:
    """InnoDB would lose a second that the binlog has: the same GTIDs, and other rows."""
    old = str(cluster.wait_whole()["primary"])
    lowered = "innodb_flush_log_at_trx_commit"
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        admin(cluster, old, f"SET GLOBAL {lowered} = 0", "SET GLOBAL sync_binlog = 0")
        end = time.monotonic() + SECONDS
        while [
            row[0] for row in admin(cluster, old, f"SELECT @@{lowered} * 10 + @@sync_binlog")
        ] != [11]:
            assert time.monotonic() < end, "it is not put back"
            time.sleep(0.02)
        writers.wait_for(20)
        cluster.kill_server(old)
        wait_failed_over(cluster, old)
        writers.wait_for(50)
        cluster.wait_whole()
        writers.check()
    assert_identical(cluster)


def test_one_that_died_before_it_was_flushed_is_cloned(cluster: Sandbox) -> None:
    """The note keeps its server from being started, and not the copy that replaces its data."""
    voter = replicas(cluster.wait_whole())[0]
    note = cluster.spec.member(voter).state_dir / "unflushed"
    cluster.kill_agent(voter)
    cluster.kill_server(voter)
    note.write_text("a run\n")
    cluster.start_agent(voter)
    cluster.wait_until(
        lambda status: "may lack what its binlog has" in str(member_of(status, voter)["reason"]),
        SECONDS,
        "it is told",
    )
    cluster.wait_whole()
    assert not note.exists()
    assert_identical(cluster)


def test_a_voter_that_takes_the_primarys_number_acknowledges_nothing_any_more(
    cluster: Sandbox, run: int
) -> None:
    """It would skip what the primary issues, and claim to have it."""
    status = cluster.wait_whole()
    number = admin(cluster, str(status["primary"]), "SELECT @@server_id")[0][0]
    voter = replicas(status)[0]
    before = pid_of(cluster, voter)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        admin(cluster, voter, f"SET GLOBAL server_id = {number}")
        if cluster.spec.flavor is Flavor.MARIADB:
            with suppress(pymysql.err.MySQLError):  # it is gone already
                admin(cluster, voter, "SET GLOBAL gtid_strict_mode = 0")
        cluster.wait_until(lambda _: pid_of(cluster, voter) != before, SECONDS, "another run")
        cluster.wait_whole()
        writers.wait_for(50)
        writers.check()
    assert_identical(cluster)


def test_a_voter_that_is_told_to_apply_later_follows_without_that(
    cluster: Sandbox, run: int
) -> None:
    voter = replicas(cluster.wait_whole())[0]
    before = pid_of(cluster, voter)
    mysql = cluster.spec.flavor is Flavor.MYSQL
    delaying = (
        (
            "STOP REPLICA SQL_THREAD",
            "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 600",
            "START REPLICA",
        )
        if mysql
        else ("STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 600", "START SLAVE")
    )
    with suppress(pymysql.err.MySQLError):  # it may be killed before the last
        admin(cluster, voter, *delaying)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        cluster.wait_until(lambda _: pid_of(cluster, voter) != before, SECONDS, "another run")
        cluster.wait_whole()
        writers.wait_for(20)
        writers.check()
    assert_identical(cluster)


def test_a_receiver_that_is_restarted_while_its_agent_is_away_costs_the_vote(
    cluster: Sandbox,
) -> None:
    voter, other = replicas(cluster.wait_whole())
    before = {name: pid_of(cluster, name) for name in (voter, other)}
    for name in (voter, other):
        cluster.kill_agent(name)
    admin(cluster, voter, "STOP REPLICA", "START REPLICA")
    for name in (voter, other):
        cluster.start_agent(name)
    cluster.wait_until(
        lambda _: pid_of(cluster, voter) != before[voter], SECONDS, "another run of its server"
    )
    cluster.wait_whole()
    assert pid_of(cluster, other) == before[other]
    assert_identical(cluster)


@pytest.mark.parametrize("written", [False, True])
def test_a_replica_whose_binary_log_was_reset_is_cloned(
    cluster: Sandbox, run: int, written: bool
) -> None:
    """Whether it has logged anything since or not: its agent knows that the data is the cluster's. On MariaDB one that
    logs again at once may report what it would have reported."""
    voter = replicas(cluster.wait_whole())[0]
    mysql = cluster.spec.flavor is Flavor.MYSQL
    reset = "RESET BINARY LOGS AND GTIDS" if mysql else "RESET MASTER"
    if written:
        with writing(cluster, run) as writers:
            writers.wait_for(50)
            admin(cluster, voter, reset)
            writers.wait_for(50)
            writers.check()
    else:
        before = pid_of(cluster, voter)
        admin(cluster, voter, reset)
        if mysql:
            cluster.wait_until(
                lambda _: pid_of(cluster, voter) != before, SECONDS, "another run of its server"
            )
    cluster.wait_whole()
    assert_identical(cluster)


def test_one_that_was_emptied_while_its_agent_was_away_is_cloned(
    cluster: Sandbox, run: int
) -> None:
    """Otherwise it would fetch what it has, vote, and its applier would break."""
    voter = replicas(cluster.wait_whole())[0]
    mysql = cluster.spec.flavor is Flavor.MYSQL
    reset = ["RESET BINARY LOGS AND GTIDS"] if mysql else ["RESET MASTER"]
    reset += [] if mysql else ["SET GLOBAL gtid_slave_pos = ''"]
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        cluster.kill_agent(voter)
        admin(cluster, voter, "STOP REPLICA", *reset)
        cluster.kill_server(voter)
        cluster.start_agent(voter)
        _told(cluster, voter, "gone from its history")
        cluster.wait_whole()
        writers.wait_for(50)
        writers.check()


def _told(cluster: Sandbox, name: str, words: str) -> None:
    cluster.wait_until(
        lambda status: words in member_of(status, name)["reason"], SECONDS, f"{name}: {words}"
    )


def test_a_primary_whose_binary_log_was_reset_is_replaced_and_cloned(
    cluster: Sandbox, run: int
) -> None:
    """Its voters do not find their position any more: all commits would wait without end."""
    old = str(cluster.wait_whole()["primary"])
    mysql = cluster.spec.flavor is Flavor.MYSQL
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        admin(cluster, old, "RESET BINARY LOGS AND GTIDS" if mysql else "RESET MASTER")
        wait_failed_over(cluster, old)
        writers.wait_for(50)
        cluster.wait_whole()
        writers.check()
    assert_identical(cluster)


def read_on(cursor: Cursor) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        cursor.execute("SELECT 1")
        time.sleep(0.02)


def test_a_replica_that_is_opened_is_closed_by_its_agent(cluster: Sandbox) -> None:
    """No manager need lead for it, and where no client wrote to it meanwhile it costs nothing."""
    voter = replicas(cluster.wait_whole())[0]
    before = pid_of(cluster, voter)
    cluster.kill_manager()
    cluster.kill_agent(voter)
    try:
        admin(cluster, voter, "SET GLOBAL read_only = 0")
        # the client takes the server for the primary, and would read old values there for as long as it is connected
        with closing(cluster.connect(voter, database="app")) as client, client.cursor() as cursor:
            cursor.execute("SELECT @@global.read_only")
            assert cursor.fetchone() == (0,)
            cluster.start_agent(voter)
            end = time.monotonic() + SECONDS
            while str(admin(cluster, voter, "SELECT @@global.read_only")[0][0]) != "1":
                assert time.monotonic() < end, "it is not closed"
                time.sleep(0.02)
            with pytest.raises(pymysql.err.Error):
                read_on(cursor)
    finally:
        cluster.start_manager()
    cluster.wait_whole()
    assert pid_of(cluster, voter) == before
    assert_identical(cluster)
