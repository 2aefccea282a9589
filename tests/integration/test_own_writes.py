"""What servers and administrators write on replicas without meaning to diverge costs neither a copy nor a vote."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pymysql

from holdfast.core.gtid import Flavor, parse
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import (
    admin,
    assert_identical,
    events,
    member_of,
    replicas,
    wait_failed_over,
    writing,
)

EVERY_NIGHT = ("FLUSH ERROR LOGS", "FLUSH SLOW LOGS", "FLUSH PRIVILEGES")


def everywhere(sandbox: Sandbox, *statements: str) -> None:
    """At the same time on all hosts, as their logrotate does."""
    names = [member.name for member in sandbox.spec.members]
    threads = [threading.Thread(target=admin, args=(sandbox, name, *statements)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


def executed(sandbox: Sandbox, member: str) -> str:
    mysql = sandbox.spec.flavor is Flavor.MYSQL
    what = "gtid_executed" if mysql else "gtid_binlog_state"
    return str(admin(sandbox, member, f"SELECT @@global.{what}")[0][0]).replace("\n", "")


def drastic(sandbox: Sandbox, since: int, *words: str) -> list[str]:
    """Events that show unnecessary steps."""
    found = events(sandbox)[since:]
    return [text for text in found if any(word in text for word in ("clone", "rewind", *words))]


def runs(sandbox: Sandbox) -> dict[str, tuple[str, str]]:
    """Each member's role, and the process of its server."""
    status = sandbox.status()
    return {
        each["name"]: (each["role"], str(sandbox.server(each["name"]).pid))
        for each in status["members"]
    }


def wait_equal(sandbox: Sandbox) -> None:
    """All members have the same GTIDs again; no client may be writing."""
    flavor = sandbox.spec.flavor
    names = [member.name for member in sandbox.spec.members]
    sandbox.wait_until(
        lambda status: (
            bool(status["whole"])
            and len({hash(parse(flavor, executed(sandbox, name))) for name in names}) == 1
        ),
        30,
        "equal GTIDs",
    )


def votes_no_longer(name: str) -> Callable[[Status], bool]:
    return lambda status: member_of(status, name)["role"] != "voter"


def test_maintenance_on_all_hosts_at_once_costs_nothing(cluster: Sandbox, run: int) -> None:
    """No member loses its vote, is restarted, rewound or cloned; and a primary that dies meanwhile is replaced."""
    status = cluster.wait_whole()
    old = str(status["primary"])
    admin(cluster, old, "DROP TABLE IF EXISTS app.own", "CREATE TABLE app.own (n INT PRIMARY KEY)")
    wait_equal(cluster)
    before, said = runs(cluster), len(events(cluster))
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        everywhere(cluster, *EVERY_NIGHT)
        writers.wait_for(200)
        writers.check()
    wait_equal(cluster)
    assert runs(cluster) == before, cluster.logs(40)
    assert drastic(cluster, said, "restart", "fence", "no longer votes") == []

    everywhere(cluster, *EVERY_NIGHT)
    cluster.kill_server(old)
    wait_failed_over(cluster, old)
    wait_equal(cluster)
    assert_identical(cluster)
    assert drastic(cluster, said) == []


def test_memory_tables_after_restarts_of_the_replicas_cost_nothing(cluster: Sandbox) -> None:
    """Emptied by a restart, such a table makes each server log that under its own identity."""
    primary = str(cluster.wait_whole()["primary"])
    made = (
        "DROP TABLE IF EXISTS app.mem",
        "CREATE TABLE app.mem (n INT PRIMARY KEY) ENGINE = MEMORY",
    )
    admin(cluster, primary, *made, "INSERT INTO app.mem VALUES (1)")
    wait_equal(cluster)
    for name in replicas(cluster.status()):
        cluster.kill_server(name)
        cluster.wait_until(votes_no_longer(name), 20)
        cluster.wait_whole()
    said = len(events(cluster))
    for name in replicas(cluster.status()):
        admin(cluster, name, "SELECT * FROM app.mem")  # a monitoring tool reads it
    admin(cluster, primary, "INSERT INTO app.mem VALUES (2)")
    wait_equal(cluster)
    assert drastic(cluster, said) == []
    for name in replicas(cluster.status()):
        assert admin(cluster, name, "SELECT n FROM app.mem") == [(2,)]
    admin(cluster, primary, "DROP TABLE app.mem")
    wait_equal(cluster)


def test_half_a_statement_on_a_table_without_transactions_is_found(
    cluster: Sandbox, run: int
) -> None:
    """It is in no binlog: the primary that crashed has changed rows that no other member has, with equal GTIDs."""
    old = str(cluster.wait_whole()["primary"])
    numbers = ", ".join(f"({n}, 0)" for n in range(100))
    admin(
        cluster,
        old,
        "CREATE TABLE app.half (n INT PRIMARY KEY, v INT) ENGINE = MyISAM",
        f"INSERT INTO app.half VALUES {numbers}",
    )
    with writing(cluster, run) as writers:
        writers.wait_for(1_100)  # more than the end of the binlog that is read after a crash
    update = "UPDATE app.half SET v = v + 1 + SLEEP(0.02)"
    half = threading.Thread(target=lambda: _until_it_dies(cluster, old, update))
    half.start()
    time.sleep(1)
    cluster.kill_server(old)
    half.join(30)
    wait_failed_over(cluster, old)
    if cluster.spec.flavor is Flavor.MYSQL:
        # copies of MySQL leave such tables out: the member stays without a vote, and status names the table
        status = cluster.wait_until(lambda status: "in app.half" in status["reason"], 30)
        assert member_of(status, old)["role"] != "voter"
        admin(cluster, str(status["primary"]), "DROP TABLE app.half")
    primary = str(cluster.wait_whole()["primary"])
    if cluster.spec.flavor is Flavor.MARIADB:
        for name in (old, primary):
            assert admin(cluster, name, "SELECT SUM(v) FROM app.half")[0][0] == 0
        admin(cluster, primary, "DROP TABLE app.half")
    wait_equal(cluster)


def _until_it_dies(sandbox: Sandbox, member: str, statement: str) -> None:
    with contextlib.suppress(pymysql.Error):
        admin(sandbox, member, statement)
