"""Replicas whose appliers are broken delay nothing, and are replaced by copies."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import (
    Clusters,
    admin,
    assert_identical,
    by_hand,
    events,
    member_of,
    replicas,
    wait_failed_over,
)


def break_applier(sandbox: Sandbox, member: str, row: int) -> None:
    """It lacks a row that the primary then changes."""
    look = f"SELECT n FROM app.t WHERE n = {row}"
    sandbox.wait_until(lambda _: admin(sandbox, member, look) != [], 20, "it has applied the row")
    by_hand(sandbox, member, "SET sql_log_bin = 0", f"DELETE FROM app.t WHERE n = {row}")
    admin(sandbox, sandbox.primary(), f"UPDATE app.t SET v = v + 1 WHERE n = {row}")


def is_broken(status: Status, *names: str) -> bool:
    found = [member_of(status, name) for name in names]
    return all(each["state"] == "applier broken" and "1032" in each["reason"] for each in found)


def write(sandbox: Sandbox, row: int) -> None:
    with sandbox.connect(sandbox.primary(), database="app", read_timeout=20) as client:
        client.cursor().execute(f"INSERT INTO t VALUES ({row}, 0)")
        client.commit()


def test_they_hold_nobody_up_whether_one_is_broken_or_all(
    clusters: Clusters, flavor: Flavor
) -> None:
    sandbox = clusters.fresh(flavor, settings={"repair_after": "never"})
    old = str(sandbox.wait_whole()["primary"])
    heir, broken = replicas(sandbox.status())
    admin(sandbox, old, "CREATE TABLE app.t (n INT PRIMARY KEY, v INT)")
    admin(sandbox, old, "INSERT INTO app.t VALUES (1, 0), (2, 0)")

    # the broken replica is named, and votes no more: each commit is on one that can take over
    break_applier(sandbox, broken, 1)
    sandbox.wait_until(
        lambda status: is_broken(status, broken) and not member_of(status, broken)["votes"], 20
    )
    write(sandbox, 10)

    # the old primary's host is gone: only the broken replica is left to acknowledge
    sandbox.kill_agent(old)
    sandbox.kill_server(old)
    assert wait_failed_over(sandbox, old) == heir
    write(sandbox, 11)
    status = sandbox.wait_until(lambda status: is_broken(status, broken), 20)
    assert member_of(status, broken)["votes"]
    sandbox.start_agent(old)
    sandbox.wait_until(
        lambda status: member_of(status, old)["votes"] and not member_of(status, broken)["votes"],
        30,
    )

    # all are broken: the primary continues, and comes back in place
    break_applier(sandbox, old, 2)
    sandbox.wait_until(lambda status: is_broken(status, old, broken), 20)
    write(sandbox, 12)
    sandbox.kill_server(heir)
    sandbox.wait_until(lambda status: not status["writable"], 10)
    status = sandbox.wait_until(lambda status: bool(status["writable"]), 30)
    assert status["primary"] == heir
    write(sandbox, 13)
    assert not any("was cloned" in text for text in events(sandbox))

    sandbox.manager.change_settings(CLUSTER, {"repair_after": "1s"}, [])
    sandbox.wait_whole()
    assert sandbox.primary() == heir
    assert admin(sandbox, broken, "SELECT n FROM app.t ORDER BY n") == [
        (n,) for n in (1, 2, 10, 11, 12, 13)
    ]
    assert_identical(sandbox)


def remove_binlogs(sandbox: Sandbox, member: str) -> None:
    """As an operator does whose disk is full, while the server runs."""
    ((base,),) = admin(sandbox, member, "SELECT @@log_bin_basename")
    for path in Path(base).parent.glob(f"{Path(base).name}.*"):
        path.unlink()


def test_replicas_whose_binlog_files_are_removed_are_replaced_one_by_one(
    clusters: Clusters, flavor: Flavor
) -> None:
    """The primary's host is lost meanwhile, too: no member is named that no other could follow."""
    sandbox = clusters.fresh(flavor, settings={"repair_after": "5s"})
    primary = str(sandbox.wait_whole()["primary"])
    admin(sandbox, primary, "CREATE TABLE app.t (n INT PRIMARY KEY, v INT)")
    write(sandbox, 1)
    others = replicas(sandbox.status())
    for name in others:
        remove_binlogs(sandbox, name)
    sandbox.wait_until(
        lambda status: all("cannot take over" in member_of(status, n)["reason"] for n in others), 10
    )
    write(sandbox, 2)
    sandbox.kill_server(primary)
    sandbox.wait_until(lambda status: not status["writable"], 10)
    status = sandbox.wait_until(lambda status: bool(status["writable"]), 30)
    assert status["primary"] == primary
    write(sandbox, 3)
    sandbox.wait_whole()
    assert sandbox.primary() == primary
    told = " ".join(events(sandbox))
    assert all(f"{name} was cloned from" in told for name in others)
    assert_identical(sandbox)


def test_a_primary_whose_binlog_files_are_removed_is_told_of_and_replaced_after_a_switchover(
    clusters: Clusters, flavor: Flavor
) -> None:
    sandbox = clusters.fresh(flavor, settings={"repair_after": "1s"})
    old = str(sandbox.wait_whole()["primary"])
    admin(sandbox, old, "CREATE TABLE app.t (n INT PRIMARY KEY, v INT)")
    remove_binlogs(sandbox, old)
    sandbox.wait_until(
        lambda status: any(
            "holdfast switchover" in text for text in member_of(status, old)["concerns"]
        ),
        10,
    )
    write(sandbox, 1)
    sandbox.manager.switch_over(CLUSTER, wait=True)
    sandbox.wait_whole()
    assert sandbox.primary() != old
    write(sandbox, 2)
    assert_identical(sandbox)
