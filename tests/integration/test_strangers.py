"""Replicas that are no voters and acknowledge: no acknowledged write is lost by them, and each is named."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration.cluster import (
    admin,
    assert_identical,
    by_hand,
    events,
    hung_agent,
    member_of,
    replicas,
    writing,
)
from tests.integration.replica_client import Place, ReplicaClient
from tests.integration.servers import wait_until

STRANGER, READER, ANOTHER = "m7", "m6", "m5"
"""Their accounts exist in every sandbox, and no member here has them."""
WINDOW_SECONDS = 0.5
"""The longest that a stranger may release commits: a look and its end; measured 0.01 to 0.1 s."""
ROWS = "app.strange"
CLIENTS = 4
BACK = ("open", "replicating")


class Rows:
    """Clients that write rows without a pause; which ids were answered, and when."""

    def __init__(self, sandbox: Sandbox, member: str, first: int) -> None:
        self.answered: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._write, args=(sandbox, member, first + number), daemon=True
            )
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, sandbox: Sandbox, member: str, number: int) -> None:
        with suppress(pymysql.err.MySQLError), sandbox.connect(member) as connection:
            while not self._ended.is_set():
                connection.cursor().execute(f"INSERT INTO {ROWS} VALUES ({number})")
                self.answered.append((time.monotonic(), number))
                number += CLIENTS

    def since(self, at: float) -> list[tuple[float, int]]:
        return [each for each in self.answered if each[0] >= at]

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(40)


def end_of_binlog(sandbox: Sandbox, member: str) -> Place:
    mysql = sandbox.spec.flavor is Flavor.MYSQL
    row = admin(sandbox, member, "SHOW BINARY LOG STATUS" if mysql else "SHOW MASTER STATUS")[0]
    return str(row[0]), int(str(row[1]))


def client(
    sandbox: Sandbox, member: str, account: str, place: Place, semi_sync: bool, uuid: str = ""
) -> ReplicaClient:
    who = sandbox.accounts.replication(account)
    port = sandbox.spec.member(member).port
    # a separate number each: a server ends the session of a replica whose number comes again
    number = 90 + int(account.removeprefix("m"))
    return ReplicaClient(
        sandbox.spec.flavor, port, who, place, semi_sync=semi_sync, uuid=uuid, server_id=number
    )


def let_in_again(sandbox: Sandbox, member: str) -> None:
    for each in (STRANGER, ANOTHER):
        user = sandbox.accounts.replication(each).user
        by_hand(sandbox, member, "SET sql_log_bin = 0", f"ALTER USER {user} ACCOUNT UNLOCK")


@contextmanager
def frozen(sandbox: Sandbox, *members: str) -> Iterator[None]:
    for each in members:
        sandbox.stop(each)
    try:
        yield
    finally:
        for each in members:
            sandbox.cont(each)


def test_what_a_stranger_acknowledged_is_said_and_not_lost(cluster: Sandbox) -> None:
    """One comes while clients write, both voters freeze, and the primary dies before they have what it released.

    The agent hangs while that begins, so that the stranger releases commits for certain. It comes before the voters
    freeze: MySQL reads from a new replica only when another one acknowledges, or after a second.
    """
    # a longer hang of the agent would cost the primary its lease on a busy machine
    cluster.manager.change_settings(CLUSTER, {"lease": "3s", "detection": "3s"})
    primary = str(cluster.wait_whole()["primary"])
    others = replicas(cluster.status())
    admin(
        cluster,
        primary,
        f"DROP TABLE IF EXISTS {ROWS}",
        f"CREATE TABLE {ROWS} (id INT PRIMARY KEY)",
    )
    place = end_of_binlog(cluster, primary)
    with client(cluster, primary, READER, place, semi_sync=False) as reader, ExitStack() as held:
        rows = Rows(cluster, primary, 1)
        wait_until(lambda: len(rows.answered) > CLIENTS, 5, "clients write")
        with hung_agent(cluster, primary):
            place = end_of_binlog(cluster, primary)
            stranger = client(cluster, primary, STRANGER, place, semi_sync=True)
            held.enter_context(stranger)
            wait_until(lambda: stranger.acknowledged > CLIENTS, 5, "it acknowledges")
            held.enter_context(frozen(cluster, *others))
            begun = time.monotonic()
            # what voters had acknowledged by then is at most one row of each client
            wait_until(lambda: len(rows.since(begun)) > 2 * CLIENTS, 5, "it releases commits")
            looked = time.monotonic()
        assert stranger.ended.wait(5)
        window, released = stranger.ended_at - looked, len(rows.since(begun))
        print(f"{cluster.spec.flavor}: ended in {1000 * window:.0f} ms, {released} released")
        assert window < WINDOW_SECONDS
        with pytest.raises(pymysql.err.OperationalError, match="lock"):
            client(cluster, primary, STRANGER, place, semi_sync=True)
        cluster.wait_until(lambda s: bool(s["doubt"]), 5, "what is in doubt is recorded")
        released = len(rows.answered)
        time.sleep(0.3)
        assert len(rows.answered) == released, "nothing is released after its end"
        assert not reader.ended.is_set(), "who does not acknowledge is left alone"
        said = "may have been acknowledged without a voter"
        cluster.wait_until(lambda _: any(said in each for each in events(cluster)), 5, said)
        account = cluster.accounts.replication(STRANGER).user
        shown = member_of(cluster.status(), primary)
        assert account in str(shown["reason"])
        cluster.kill_server(primary)
    rows.stop()

    def is_back(status: dict[str, Any]) -> bool:
        now = member_of(status, primary)
        return now["incarnation"] not in ("", shown["incarnation"]) and now["state"] in BACK

    # the member that takes over has what was released; if none has it, the primary comes back in place
    cluster.wait_until(is_back, 40)
    let_in_again(cluster, primary)
    cluster.wait_whole(40)
    assert_identical(cluster)
    found = {int(str(row[0])) for row in admin(cluster, primary, f"SELECT id FROM {ROWS}")}
    lost = {number for _, number in rows.answered} - found
    assert not lost, sorted(lost)[:10]


def test_a_member_that_acknowledges_and_should_not_is_set_right(cluster: Sandbox, run: int) -> None:
    """By another's account, as a learner, or by another server that uses a member's account."""
    cluster.wait_whole()
    primary = str(cluster.status()["primary"])
    one, other = replicas(cluster.status())
    mysql = cluster.spec.flavor is Flavor.MYSQL
    with writing(cluster, run) as writers:
        # repointed to the primary by hand, by an account that could not be barred with its own
        foreign = cluster.accounts.replication(STRANGER)
        change = "CHANGE REPLICATION SOURCE TO SOURCE" if mysql else "CHANGE MASTER TO MASTER"
        password = change.split()[-1]
        by_hand(
            cluster,
            one,
            "STOP REPLICA",
            f"{change}_USER = '{foreign.user}', {password}_PASSWORD = '{foreign.password}'",
            "START REPLICA",
        )
        own = cluster.accounts.replication(one).user
        cluster.wait_until(
            lambda _: followed_by(cluster, one) == own, 20, f"{one} follows as {own}"
        )
        writers.wait_for(100)
        let_in_again(cluster, primary)
        cluster.wait_whole(40)

        # a learner whose semi-sync is switched on
        cluster.manager.change_settings(CLUSTER, {f"members.{other}.voter": "false"})
        cluster.wait_until(lambda s: s["whole"] and not member_of(s, other)["votes"], 20)
        side = "replica" if mysql else "slave"
        by_hand(
            cluster,
            other,
            f"SET GLOBAL rpl_semi_sync_{side}_enabled = 1",
            "STOP REPLICA IO_THREAD",
            "START REPLICA IO_THREAD",
        )
        enabled = f"SELECT @@rpl_semi_sync_{side}_enabled"
        cluster.wait_until(lambda _: not int(str(admin(cluster, other, enabled)[0][0])), 20)
        cluster.manager.change_settings(CLUSTER, {}, [f"members.{other}.voter"])
        cluster.wait_until(lambda s: bool(member_of(s, other)["votes"]), 20)

        # another server connects by a voter's account
        place = end_of_binlog(cluster, primary)
        with client(
            cluster, primary, one, place, True, "11111111-1111-1111-1111-111111111111"
        ) as it:
            assert it.ended.wait(10)
        cluster.wait_whole(40)
        assert any(f"but is not {one}" in each for each in events(cluster))
        writers.wait_for(100)
        writers.check()


def followed_by(sandbox: Sandbox, member: str) -> str:
    mysql = sandbox.spec.flavor is Flavor.MYSQL
    with sandbox.connect(member, sandbox.accounts.admin) as connection:
        cursor = connection.cursor(pymysql.cursors.DictCursor)
        cursor.execute("SHOW REPLICA STATUS")
        row = cursor.fetchone() or {}
    return str(row.get("Source_User" if mysql else "Master_User"))
