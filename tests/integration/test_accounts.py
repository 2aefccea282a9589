"""Replication accounts that an operator drops are made again, also while a failover needs them; a new cluster has
them."""

from __future__ import annotations

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import Clusters, admin, replicas
from tests.integration.test_config import holdfast

SECONDS = 30.0


def forget(cluster: Sandbox, member: str, *users: str) -> None:
    """Drop these accounts there, and nowhere else."""
    mysql = cluster.spec.flavor is Flavor.MYSQL
    opened = ["SET GLOBAL super_read_only = 0"] if mysql else []
    dropped = [f"DROP USER '{user}'@'%'" for user in users]
    admin(cluster, member, *opened, "SET sql_log_bin = 0", *dropped)


def has(cluster: Sandbox, member: str) -> int:
    look = "SELECT COUNT(*) FROM mysql.user WHERE Repl_slave_priv = 'Y' AND User LIKE 'repl%%'"
    return int(str(admin(cluster, member, look)[0][0]))


def test_a_failover_onto_a_server_whose_accounts_were_dropped_gets_through(
    cluster: Sandbox,
) -> None:
    """Before, it stood for good: 1 of … must acknowledge, and no replica could connect."""
    status = cluster.wait_whole()
    primary, names = str(status["primary"]), replicas(status)
    everywhere = [f"repl_{name}" for name in (primary, *names)]
    known = has(cluster, primary)
    for name in names:
        forget(cluster, name, *everywhere)
    cluster.kill_server(primary)
    cluster.wait_until(lambda s: s["primary"] not in (primary, "") and s["writable"], SECONDS)
    status = cluster.wait_whole()
    there = {member["name"] for member in status["members"]}
    cluster.wait_until(lambda _: all(has(cluster, name) >= known for name in there), SECONDS)
    told = holdfast(cluster, "check")
    assert told.returncode == 0, told.stdout
    together = told.stdout.partition("together")[2]
    assert "logins, administrators" in together, (
        "each can log in to the others, by the same accounts"
    )


def test_three_empty_data_directories_become_a_cluster(clusters: Clusters, flavor: Flavor) -> None:
    """There is no account and no data directory: only agents and a manager."""
    cluster = clusters.fresh(flavor, empty=True)
    try:
        status = cluster.wait_whole()
        assert sorted(each["role"] for each in status["members"]) == ["primary", "voter", "voter"]
        assert holdfast(cluster, "check").returncode == 0
        for member in cluster.spec.members:
            users = {
                str(row[0]) for row in admin(cluster, member.name, "SELECT User FROM mysql.user")
            }
            assert {"holdfast", "repl_m1", "repl_m2", "repl_m3"} <= users
            with pytest.raises(pymysql.err.OperationalError):
                pymysql.connect(user="root", unix_socket=str(member.socket))
        cluster.kill_server(str(status["primary"]))
        cluster.wait_until(lambda s: s["primary"] != status["primary"] and s["writable"], SECONDS)
        cluster.wait_whole()
    finally:
        clusters.remove()
