"""The main job on real servers: the primary dies, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.servers import trees
from holdfast.sandbox.waiting import Status
from holdfast.server.process.process import Running
from tests.integration.cluster import (
    admin,
    again_whole,
    assert_identical,
    explain,
    member_of,
    replicas,
    wait_failed_over,
    writing,
)


def incarnations(sandbox: Sandbox) -> dict[str, str]:
    return {each["name"]: each["incarnation"] for each in sandbox.status()["members"]}


def test_crash_at_idle(cluster: Sandbox) -> None:
    term = cluster.status()["term"]
    killed = cluster.kill_server("primary")
    primary = wait_failed_over(cluster, killed)
    status = cluster.wait_whole(30)
    assert status["primary"] == primary
    assert status["term"] > term
    assert member_of(status, killed)["role"] == "voter"
    assert_identical(cluster)


def test_crash_under_load(cluster: Sandbox, run: int) -> None:
    with writing(cluster, run, writers=8, rate=None) as writers:
        writers.wait_for(300)
        killed = cluster.kill_server("primary")
        wait_failed_over(cluster, killed)
        writers.wait_for(300)
        writers.check()


def test_a_promoted_server_flushes_and_a_demoted_one_relaxes(cluster: Sandbox) -> None:
    status = cluster.wait_whole()
    query = "SELECT @@sync_binlog, @@innodb_flush_log_at_trx_commit"
    assert admin(cluster, status["primary"], query) == [(1, 1)]
    for name in replicas(status):
        assert admin(cluster, name, query) == [(0, 2)]


def test_crash_of_a_replica_stops_nobody(cluster: Sandbox, run: int) -> None:
    before = incarnations(cluster)
    status = cluster.wait_whole()
    victim = replicas(status)[0]
    with writing(cluster, run) as writers:
        cluster.kill_server(victim)
        writers.wait_for(200)
        after = cluster.wait_until(
            lambda s: s["whole"] and member_of(s, victim)["incarnation"] != before[victim],
            30,
            f"{victim} to vote again",
        )
        assert after["primary"] == status["primary"]
        assert after["term"] == status["term"]
        writers.check()


def test_crash_of_the_primary_right_after_that_of_a_replica_came_back(
    cluster: Sandbox, run: int
) -> None:
    """What the replica had acknowledged before its crash must not be counted for it any more."""
    with writing(cluster, run) as writers:
        for _ in range(2):
            status = cluster.wait_whole()
            victim = replicas(status)[-1]
            old = member_of(status, victim)["incarnation"]
            cluster.kill_server(victim)
            cluster.wait_until(again_whole(victim, old), 30)
            wait_failed_over(cluster, cluster.kill_server("primary"))
            writers.wait_for(50)
        writers.check()


@pytest.mark.parametrize("seed", range(2))
def test_the_manager_dies_at_a_random_point_of_a_failover(
    cluster: Sandbox, run: int, seed: int
) -> None:
    delay = random.Random(f"{cluster.spec.flavor}{seed}").uniform(0.0, 0.45)
    with writing(cluster, run) as writers:
        before = incarnations(cluster)
        killed = cluster.kill_server("primary")
        time.sleep(delay)
        cluster.kill_manager()
        cluster.start_manager()
        cluster.wait_until(
            lambda s: s["whole"] and member_of(s, killed)["incarnation"] != before[killed],
            40,
            f"whole (manager killed after {delay:.3f} s)",
        )
        writers.wait_for(100)
        writers.check()


def is_missed(name: str) -> Callable[[Status], bool]:
    return lambda status: member_of(status, name)["state"] == "unknown"


def test_the_agent_dies_and_returns_without_touching_the_server(cluster: Sandbox, run: int) -> None:
    status = cluster.wait_whole()
    before = incarnations(cluster)
    with writing(cluster, run) as writers:
        for name in (status["primary"], replicas(status)[0]):
            cluster.kill_agent(name)
            seen = cluster.wait_until(is_missed(name), 10, "it to be missed")
            assert "its agent does not answer" in member_of(seen, name)["reason"] or (
                f"the agent of {name}" in seen["reason"]
            )
            writers.wait_for(100)
            cluster.start_agent(name)
            cluster.wait_until(lambda s: s["whole"], 20)
        writers.check()
    assert incarnations(cluster) == before
    assert cluster.status()["primary"] == status["primary"]


def waiting_inserts(sandbox: Sandbox, member: str, count: int) -> list[threading.Thread]:
    """Clients whose commits wait for an acknowledgement that does not come."""

    def insert(number: int) -> None:
        with (
            pytest.raises(pymysql.err.MySQLError),
            sandbox.connect(member, database="app") as connection,
        ):
            connection.query(f"INSERT INTO pending VALUES ({number})")

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_the_pending_log_is_cut(cluster: Sandbox) -> None:
    """Commits wait, no replica has received them, the primary is killed: they are gone everywhere, and kept in a
    file."""
    status = cluster.wait_whole()
    old = str(status["primary"])
    with cluster.connect(old, database="app") as connection:
        connection.query("CREATE TABLE IF NOT EXISTS pending (n INT PRIMARY KEY)")
        connection.query("DELETE FROM pending")
        connection.query("INSERT INTO pending VALUES (1000)")
    uuid = admin(cluster, old, "SELECT @@server_uuid") if cluster.spec.flavor == "mysql" else None
    # without a manager and without followers the primary would end itself
    cluster.manager.pause(CLUSTER, "receivers are stopped by hand")
    for name in replicas(status):
        admin(cluster, name, "STOP REPLICA IO_THREAD")
    clients = waiting_inserts(cluster, old, 6)
    time.sleep(1.0)
    assert all(client.is_alive() for client in clients), "commits were acknowledged by nobody"
    server = cluster.server(old)
    server.kill()
    for client in clients:
        client.join(10)
    cluster.manager.resume(CLUSTER)
    wait_failed_over(cluster, old)
    cluster.wait_whole(40)
    for name in ("m1", "m2", "m3"):
        assert admin(cluster, name, "SELECT n FROM app.pending") == [(1000,)], name
    assert_identical(cluster)
    saved = sorted((cluster.spec.member(old).folder / "agent" / "pending").iterdir())
    assert inserted_rows(cluster.spec.flavor, saved[-1]) >= 1
    if uuid:
        assert admin(cluster, old, "SELECT @@server_uuid") != uuid


def inserted_rows(flavor: Flavor, binlog: Path) -> int:
    """How many rows of the table a saved file shows to an operator, with the server's own tool."""
    tool = "mariadb-binlog" if flavor is Flavor.MARIADB else "mysqlbinlog"
    found = subprocess.run(
        [*trees.find(flavor.value).tool(tool), "--no-defaults", "-v", str(binlog)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return found.stdout.count("INSERT INTO `app`.`pending`")


def kill_agent_and_server(sandbox: Sandbox, member: str) -> None:
    sandbox.kill_agent(member)
    sandbox.kill_server(member)


def test_without_a_quorum_nobody_is_promoted_and_the_primary_comes_back_in_place(
    cluster: Sandbox, run: int
) -> None:
    status = cluster.wait_whole()
    old, (gone, other) = str(status["primary"]), replicas(status)
    with writing(cluster, run) as writers:
        kill_agent_and_server(cluster, gone)
        writers.wait_for(50)
        cluster.kill_server(old)
        refused = cluster.wait_until(
            lambda s: "no member can take over" in s["reason"], 10, "the refusal"
        )
        assert f"the agent of {gone} does not answer" in refused["reason"]
        assert refused["primary"] == old
        assert not refused["writable"]
        back = cluster.wait_until(lambda s: s["writable"], 30, "the primary to be open again")
        assert back["primary"] == old
        assert member_of(back, other)["role"] == "voter"
        writers.wait_for(50)
        cluster.start_agent(gone)
        cluster.wait_whole(30)
        writers.check()


def test_alone_the_primary_blocks_and_what_waits_is_acknowledged_when_a_replica_is_back(
    cluster: Sandbox, run: int
) -> None:
    status = cluster.wait_whole()
    with writing(cluster, run, writers=8) as writers:
        gone = [cluster.server(name) for name in replicas(status)]
        for server in gone:
            server.kill()
        after = cluster.wait_until(
            lambda s: s["whole"] and not any_still_known(s, gone), 40, "both replicas to vote again"
        )
        assert (after["primary"], after["term"]) == (status["primary"], status["term"])
        writers.wait_for(100)
        writers.check()


def test_all_servers_at_once(cluster: Sandbox, run: int) -> None:
    """As when the power fails: the primary has everything, so it comes back in place."""
    status = cluster.wait_whole()
    with writing(cluster, run) as writers:
        writers.wait_for(200)
        running = [cluster.server(member.name) for member in cluster.spec.members]
        for server in running:
            server.kill()
        cluster.wait_until(
            lambda s: s["whole"] and s["writable"] and not any_still_known(s, running), 60, "whole"
        )
        writers.wait_for(50)
        writers.check()
    assert cluster.status()["primary"] == status["primary"]


def any_still_known(status: Status, gone: list[Running]) -> bool:
    """Whether the status still shows one of these processes."""
    known = {each["incarnation"] for each in status["members"]}
    return any(each.incarnation in known for each in gone)


def test_a_server_that_is_opened_and_written_by_hand_beside_the_primary_is_mended(
    cluster: Sandbox,
) -> None:
    status = cluster.wait_whole()
    name = replicas(status)[0]
    admin(cluster, name, "SET GLOBAL read_only = 0", "CREATE DATABASE by_hand")

    def mended(seen: Status) -> bool:
        try:
            return bool(seen["whole"]) and not admin(cluster, name, "SHOW DATABASES LIKE 'by_hand'")
        except pymysql.err.MySQLError:
            return False  # it is being cloned

    cluster.wait_until(mended, 30, "it to be cloned")
    assert cluster.status()["primary"] == status["primary"]
    assert_identical(cluster)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_that_is_told_to_end_leaves_its_server(
    cluster: Sandbox, number: signal.Signals
) -> None:
    cluster.wait_whole()
    before = incarnations(cluster)
    daemon = cluster._crew._daemons["m2"]
    os.kill(daemon.pid, number)
    end = time.monotonic() + 10
    while daemon.alive:
        assert time.monotonic() < end, explain(cluster)
        cluster._crew.bury()
        time.sleep(0.02)
    cluster.start_agent("m2")
    cluster.wait_until(lambda s: s["whole"], 20)
    assert incarnations(cluster) == before
