"""A hand lets a commit through that no voter has, and the primary dies: it is told, and nobody keeps it."""

from __future__ import annotations

import threading
from contextlib import suppress

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.cluster import Sandbox
from holdfast.sandbox.spec import CLUSTER
from tests.integration.cluster import admin, assert_identical, replicas, wait_failed_over

SECONDS = 60.0


@pytest.fixture(scope="module", params=[Flavor.MARIADB], ids=lambda each: each.value)
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """KILL QUERY lets nothing through on MySQL: ``test_server_releases.py``."""
    return Flavor(request.param)


def test_what_a_hand_let_through_is_told_and_kept_by_nobody(cluster: Sandbox) -> None:
    old = cluster.primary()
    table = "app.let_through"
    admin(cluster, old, f"CREATE TABLE {table} (id INT PRIMARY KEY)")
    since = cluster.manager.events(CLUSTER, 0, 0)[-1]["id"]
    cluster.manager.pause(CLUSTER, "receivers are stopped by hand")
    for name in replicas(cluster.status()):
        admin(cluster, name, "STOP REPLICA IO_THREAD")
    waiting = cluster.connect(old)
    with waiting.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        (session,) = cursor.fetchone()
    answered = threading.Event()

    def write() -> None:
        with suppress(pymysql.err.MySQLError), waiting.cursor() as cursor:
            cursor.execute(f"INSERT INTO {table} VALUES (1)")
            answered.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not answered.wait(0.3)
    with cluster.connect(old) as other, other.cursor() as cursor:
        cursor.execute(f"KILL QUERY {session}")  # by the application's own account
    assert answered.wait(10), "its client is told that it is committed"
    writer.join()
    cluster.wait_until(lambda _: bool(told(cluster, since)), SECONDS, "an event")
    cluster.kill_server(old)
    cluster.manager.resume(CLUSTER)
    wait_failed_over(cluster, old)
    cluster.wait_whole()
    for member in cluster.spec.members:
        assert admin(cluster, member.name, f"SELECT * FROM {table}") == []
    assert_identical(cluster)
    entries = cluster.manager.history(CLUSTER, 20)
    assert any("acknowledged without a voter" in entry["cause"] for entry in entries)


def told(cluster: Sandbox, since: int) -> list[str]:
    return [
        str(event["text"])
        for event in cluster.manager.events(CLUSTER, since, 0)
        if event["kind"] == "unacknowledged"
    ]
