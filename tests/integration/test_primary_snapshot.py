"""The primary is restored from a snapshot: it has less than it has acknowledged, and its voters know."""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import admin, assert_identical, member_of, replicas

ROWS = 20


def test_it_stays_closed_until_it_has_what_its_voters_have_also_while_these_are_down(
    cluster: Sandbox,
) -> None:
    status = cluster.wait_whole()
    name = status["primary"]
    data = cluster.spec.member(name).datadir
    snapshot, newest = data.with_name("snapshot"), data.with_name("newest")
    admin(cluster, name, "CREATE TABLE app.put_back (id INT PRIMARY KEY)")
    cluster.kill_manager()
    cluster.stop(name)
    shutil.copytree(data, snapshot, ignore=shutil.ignore_patterns("*.sock*"))
    cluster.cont(name)
    for number in range(ROWS):
        admin(cluster, name, f"INSERT INTO app.put_back VALUES ({number})")
    for each in (name, *replicas(status)):
        cluster.server(each).kill_and_wait(10)
    exchange(data, newest, snapshot)

    for each in replicas(status):
        cluster.kill_agent(each)
    cluster.start_manager()
    status = cluster.wait_until(
        lambda status: "until it is known that it has all" in status["reason"],
        30,
        "its voters are waited for",
    )
    assert not status["writable"]
    for each in replicas(status):
        cluster.start_agent(each)
    status = cluster.wait_until(
        lambda status: (
            "came back without transactions that" in status["reason"]
            # the member that holds what it lacks was not started: what that had only received would be gone
            and {member_of(status, each)["state"] for each in replicas(status)} == {"down"}
        ),
        60,
        "it is compared with its voters",
    )
    assert not status["writable"]
    assert member_of(status, name)["state"] == "read-only"

    cluster.kill_manager()
    cluster.server(name).kill_and_wait(10)
    exchange(data, snapshot, newest)
    cluster.start_manager()
    status = cluster.wait_whole()
    assert status["primary"] == name
    rows = admin(cluster, name, "SELECT COUNT(*) FROM app.put_back")
    assert rows == [(ROWS,)]
    admin(cluster, name, "DROP TABLE app.put_back")
    assert_identical(cluster)
    shutil.rmtree(snapshot)


def exchange(data: Path, away: Path, instead: Path) -> None:
    data.rename(away)
    instead.rename(data)
