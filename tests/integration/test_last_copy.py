"""A power cut tears the only other copy while commits wait for it: it is made anew from the primary, by itself."""

from __future__ import annotations

import threading
from contextlib import closing

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration.cluster import Clusters

ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555\n"
CLIENTS_SECONDS = 60


def insert(sandbox: Sandbox, member: str, number: int) -> None:
    with closing(sandbox.connect(member, database="app", read_timeout=CLIENTS_SECONDS)) as client:
        client.autocommit(True)
        client.cursor().execute("INSERT INTO torn VALUES (%s)", (number,))


def power_fails(sandbox: Sandbox, name: str) -> None:
    """Agent and server die, and what the server had written while it was relaxed may be on disk or not."""
    sandbox.kill_agent(name)
    sandbox.kill_server(name)
    (sandbox.spec.member(name).state_dir / "relaxed").write_text(ANOTHER_BOOT)


@pytest.mark.parametrize("waiting", [True, False], ids=["commits wait", "idle"])
def test_the_last_copy_is_made_anew_from_the_primary_that_waits_for_it(
    clusters: Clusters, flavor: Flavor, waiting: bool
) -> None:
    cluster = clusters.whole(flavor, 2)
    primary = cluster.primary()
    replica = next(m.name for m in cluster.spec.members if m.name != primary)
    admin = cluster.accounts.admin
    with closing(cluster.connect(primary, admin)) as session:
        session.cursor().execute("CREATE TABLE IF NOT EXISTS app.torn (n INT PRIMARY KEY)")
        session.cursor().execute("DELETE FROM app.torn")
    insert(cluster, primary, 1)
    before = cluster.manager.events(CLUSTER, 0, 0)[-1]["id"]
    power_fails(cluster, replica)
    told: list[str] = []

    def client() -> None:
        try:
            insert(cluster, primary, 2)
            told.append("OK")
        except pymysql.Error as error:
            told.append(repr(error))

    commit = threading.Thread(target=client, daemon=True)
    if waiting:
        commit.start()
        commit.join(0.5)
        assert not told
    cluster.wait_until(lambda status: not status["whole"], 30, "its end to be noticed")
    cluster.start_agent(replica)
    cluster.wait_whole()
    texts = [str(event["text"]) for event in cluster.manager.events(CLUSTER, before, 0)]
    assert any(text == f"{replica}: clone" for text in texts), texts
    if waiting:
        commit.join(CLIENTS_SECONDS)
        assert "OK" not in told, "nobody is told that it is committed before another has it"
        assert any(f"so that {replica} can be cloned from it" in text for text in texts), texts
    else:
        assert any(text == f"{primary}: close" for text in texts), texts
        assert not any(text == f"{primary}: fence" for text in texts), texts
    insert(cluster, primary, 3)
    expected = [("1,2,3",) if waiting else ("1,3",)] * 2

    def rows() -> list[tuple[str, ...]]:
        found = []
        for name in (primary, replica):
            with closing(cluster.connect(name, admin)) as session, session.cursor() as cursor:
                cursor.execute("SELECT GROUP_CONCAT(n ORDER BY n) FROM app.torn")
                found.append(cursor.fetchone())
        return found

    # what is acknowledged was received, and is applied a moment later
    cluster.wait_until(lambda _: rows() == expected, 10, "the same rows")


def test_a_primary_that_dies_with_changes_that_cannot_roll_back_is_compared_before_it_votes(
    cluster: Sandbox,
) -> None:
    """Its binlog may hold what its tables do not. And what was prepared there is ended on its successor."""
    old = cluster.primary()
    admin = cluster.accounts.admin
    with closing(cluster.connect(old, admin)) as session, session.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS app.plain, app.held")
        cursor.execute("CREATE TABLE app.plain (n INT PRIMARY KEY) ENGINE=MyISAM")
        cursor.execute("CREATE TABLE app.held (n INT PRIMARY KEY) ENGINE=InnoDB")
    with closing(cluster.connect(old, database="app")) as client, client.cursor() as cursor:
        cursor.execute("INSERT INTO plain VALUES (1)")
        for statement in (
            "XA START 'kept'",
            "INSERT INTO held VALUES (2)",
            "XA END 'kept'",
            "XA PREPARE 'kept'",
        ):
            cursor.execute(statement)
    before = cluster.manager.events(CLUSTER, 0, 0)[-1]["id"]
    cluster.kill_server(old)
    cluster.wait_until(lambda s: bool(s["primary"] != old and s["writable"]), 30, "another primary")
    new = cluster.primary()

    def listed(status: dict[str, object]) -> bool:
        members = status["members"]
        assert isinstance(members, list)
        return any(m["name"] == new and m["prepared"] == ["X'6b657074',X'',1"] for m in members)

    cluster.wait_until(listed, 30, "status lists what is prepared")
    with closing(cluster.connect(new, admin)) as session, session.cursor() as cursor:
        cursor.execute("XA COMMIT 'kept'")
    cluster.wait_whole()
    texts = [str(event["text"]) for event in cluster.manager.events(CLUSTER, before, 0)]
    assert f"{old}: compare" in texts, texts
    assert f"{old}: clone" not in texts, "it had lost nothing"
    for member in cluster.spec.members:
        with closing(cluster.connect(member.name, admin)) as session, session.cursor() as cursor:
            cursor.execute("SELECT (SELECT n FROM app.plain), (SELECT n FROM app.held)")
            assert cursor.fetchone() == (1, 2), member.name
    with closing(cluster.connect(new, admin)) as session, session.cursor() as cursor:
        cursor.execute("DROP TABLE app.plain, app.held")  # MySQL clones no such cluster
