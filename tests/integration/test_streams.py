"""Clients choose the stream that they write to: MySQL's tags, MariaDB's domains. All of them are the primary's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pymysql

from holdfast.core.gtid import SEQUENCE_STEP, Flavor, parse
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import (
    admin,
    assert_identical,
    by_hand,
    events,
    replicas,
    wait_failed_over,
    writing,
)

MARIADB_DOMAIN, CUT_DOMAIN, REWOUND_DOMAIN = 7, 8, 9


def stream(sandbox: Sandbox, domain: int) -> str:
    """The statement after which the session's next transaction belongs to an unusual stream."""
    if sandbox.spec.flavor is Flavor.MYSQL:
        return f"SET gtid_next = 'AUTOMATIC:blue{domain}'"
    return f"SET SESSION gtid_domain_id = {domain}"


@contextmanager
def writing_elsewhere(sandbox: Sandbox, primary: str) -> Iterator[list[int]]:
    """A client whose transactions belong to a stream of their own; yields the numbers that were acknowledged to it."""
    told: list[int] = []
    ended = threading.Event()

    def write() -> None:
        with (
            sandbox.connect(primary, sandbox.accounts.admin) as session,
            session.cursor() as cursor,
        ):
            while not ended.is_set():
                cursor.execute(stream(sandbox, MARIADB_DOMAIN))
                cursor.execute(f"INSERT INTO app.streams VALUES ({len(told)})")
                told.append(len(told))
                time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        thread.join(20)
        assert not thread.is_alive()


def has(sandbox: Sandbox, member: str) -> str:
    mysql = sandbox.spec.flavor is Flavor.MYSQL
    what = "gtid_executed" if mysql else "gtid_binlog_state"
    return str(admin(sandbox, member, f"SELECT @@global.{what}")[0][0]).replace("\n", "")


def opened(primary: str) -> Callable[[Status], bool]:
    return lambda status: status["primary"] == primary and status["writable"]


def test_all_streams_of_a_primary_are_its_own(cluster: Sandbox, run: int) -> None:
    """No transaction is taken for errant; a pending tail is cut, an errant write rewound, in whatever stream."""
    mysql = cluster.spec.flavor is Flavor.MYSQL
    status = cluster.wait_whole()
    old, term = str(status["primary"]), status["term"]
    made = ("DROP TABLE IF EXISTS app.streams", "CREATE TABLE app.streams (n INT PRIMARY KEY)")
    admin(cluster, old, *made)
    before = len(events(cluster))
    with writing(cluster, run) as writers, writing_elsewhere(cluster, old) as told:
        writers.wait_for(600)
        assert len(told) > 100
    status = cluster.wait_whole()
    assert (status["primary"], status["term"]) == (old, term)
    assert events(cluster)[before:] == []

    leave_pending(cluster, old)
    new = wait_failed_over(cluster, old)
    cluster.wait_whole(40)
    assert_identical(cluster)
    rows = [n for (n,) in admin(cluster, old, "SELECT n FROM app.streams ORDER BY n")]
    assert rows == list(range(len(told)))
    assert list((cluster.spec.member(old).state_dir / "pending").glob("*-term*.binlog"))
    if not mysql:  # the numbers of every domain begin anew, and what was cut is not used again
        state = parse(Flavor.MARIADB, has(cluster, new)).heads()
        assert state[str(MARIADB_DOMAIN)][0] % SEQUENCE_STEP == 0
        assert str(CUT_DOMAIN) not in state

    other = next(name for name in replicas(cluster.status()) if name != old)
    by_hand(cluster, other, stream(cluster, REWOUND_DOMAIN), "INSERT INTO app.streams VALUES (-1)")
    cluster.wait_until(lambda status: not status["whole"], 20)
    cluster.wait_whole()
    assert_identical(cluster)
    assert min(n for (n,) in admin(cluster, other, "SELECT n FROM app.streams")) == 0

    for next_primary, domain in ((old, CUT_DOMAIN), (other, REWOUND_DOMAIN)):
        cluster.manager.switch_over(CLUSTER, next_primary, wait=True)
        cluster.wait_until(opened(next_primary), 30)
        cluster.wait_whole()
        if not mysql:
            heads = parse(Flavor.MARIADB, has(cluster, next_primary)).heads()
            assert heads[str(domain)][0] >= SEQUENCE_STEP
    assert_identical(cluster)


def leave_pending(sandbox: Sandbox, primary: str) -> None:
    """One commit of a stream that no other server knows waits in vain, and the server dies."""
    # without a manager and without followers the primary would end itself
    sandbox.manager.pause(CLUSTER, "receivers are stopped by hand")
    for name in replicas(sandbox.status()):
        admin(sandbox, name, "STOP REPLICA IO_THREAD")

    def insert() -> None:
        try:
            admin(
                sandbox, primary, stream(sandbox, CUT_DOMAIN), "INSERT INTO app.streams VALUES (-9)"
            )
        except pymysql.err.Error:
            return
        raise AssertionError("a commit that nobody received was answered")

    client = threading.Thread(target=insert)
    client.start()
    time.sleep(1.0)
    assert client.is_alive()
    sandbox.server(primary).kill()
    client.join(10)
    sandbox.manager.resume(CLUSTER)
