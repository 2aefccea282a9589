"""The cluster itself undoes what an operator writes on a replica by hand, and compares the tables."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import assert_identical, member_of, replicas, writing

SECONDS = 60.0


def by_hand(sandbox: Sandbox, name: str, *statements: str) -> None:
    """As an administrator who has logged in on that host."""
    with sandbox.connect(name, sandbox.accounts.admin) as connection, connection.cursor() as cursor:
        if sandbox.spec.flavor is Flavor.MYSQL:
            cursor.execute("SET GLOBAL super_read_only = 0")
        for statement in statements:
            cursor.execute(statement)


def test_an_errant_write_on_a_voter_is_saved_undone_and_compared_while_clients_write(
    cluster: Sandbox, run: int
) -> None:
    victim = replicas(cluster.status())[0]
    before = saved(cluster, victim)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        issuer = origin(cluster, victim)
        by_hand(cluster, victim, "UPDATE holdfast.proof SET term = term + 1000")
        writers.wait_for(50)
        cluster.wait_until(lambda status: saved(cluster, victim) > before, SECONDS)
        cluster.wait_until(lambda status: bool(status["whole"]), SECONDS)
        writers.wait_for(50)
        writers.check()
    if (
        cluster.spec.flavor is Flavor.MYSQL
    ):  # or it would issue the same GTIDs again, once it is the primary
        assert origin(cluster, victim) != issuer
    (text,) = saved(cluster, victim) - before
    assert "UPDATE holdfast.proof (id=" in text.read_text()
    state = member_of(cluster.status(), victim)
    assert not state.get("unfit"), state
    assert_identical(cluster)


def origin(sandbox: Sandbox, name: str) -> str:
    with sandbox.connect(name) as connection, connection.cursor() as cursor:
        what = "@@server_uuid" if sandbox.spec.flavor is Flavor.MYSQL else "@@server_id"
        cursor.execute(f"SELECT {what}")
        return str(cursor.fetchone()[0])


def saved(sandbox: Sandbox, name: str) -> set[Path]:
    return set(sandbox.spec.member(name).state_dir.glob("pending/*-errant-*.txt"))


def test_an_errant_drop_table_is_saved_and_the_member_cloned(cluster: Sandbox, run: int) -> None:
    victim = replicas(cluster.status())[0]
    before = saved(cluster, victim)
    with writing(cluster, run) as writers:
        writers.wait_for(20)
        by_hand(cluster, victim, "CREATE TABLE app.mine (a int)", "DROP TABLE app.mine")
        cluster.wait_until(lambda status: saved(cluster, victim) > before, SECONDS)
        cluster.wait_until(lambda status: bool(status["whole"]), 2 * SECONDS)
        writers.check()
    new = saved(cluster, victim) - before
    assert any("DROP TABLE" in each.read_text() for each in new)
    assert_identical(cluster)


def test_an_errant_write_right_before_a_crash_is_found_when_the_server_comes_back(
    cluster: Sandbox, run: int
) -> None:
    """Its binlog ends with what looks pending: but it was no primary, so it is committed."""
    victim = replicas(cluster.status())[1]
    before = saved(cluster, victim)
    with writing(cluster, run) as writers:
        writers.wait_for(20)
        by_hand(cluster, victim, "UPDATE holdfast.proof SET term = term + 7")
        cluster.kill_server(victim)
        cluster.wait_until(lambda status: saved(cluster, victim) > before, SECONDS)
        cluster.wait_until(lambda status: bool(status["whole"]), SECONDS)
        writers.check()
    assert_identical(cluster)
