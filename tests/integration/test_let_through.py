"""An operator releases commits that no voter has, and the primary dies: this is reported, and no member keeps them."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from typing import Any

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration.cluster import (
    admin,
    assert_identical,
    member_of,
    replicas,
    wait_failed_over,
)
from tests.integration.test_config import holdfast

SECONDS = 20.0
MOMENT = 0.4
"""How long a commit that waits is observed to get no answer."""
TABLE = "app.let_through"


class Commit:
    """A row that a client writes. :ivar answered: set once the client gets the answer that it is committed"""

    def __init__(self, cluster: Sandbox, member: str, number: int) -> None:
        self.answered = threading.Event()
        self._wire = cluster.connect(member)
        with self._wire.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            (self.session,) = cursor.fetchone()
        self._thread = threading.Thread(target=self._write, args=(number,), daemon=True)
        self._thread.start()

    def _write(self, number: int) -> None:
        with suppress(pymysql.err.MySQLError), self._wire.cursor() as cursor:
            cursor.execute(f"INSERT INTO {TABLE} VALUES ({number})")
            self.answered.set()

    @property
    def waits(self) -> bool:
        return not self.answered.wait(MOMENT)

    def close(self) -> None:
        """Wait until it is answered, or its server gone."""
        self._thread.join(10)
        self._wire.close()


def test_what_a_hand_let_through_is_told_and_kept_by_nobody(cluster: Sandbox) -> None:
    mysql = cluster.spec.flavor is Flavor.MYSQL
    prefix = "rpl_semi_sync_source" if mysql else "rpl_semi_sync_master"
    old = str(cluster.wait_whole()["primary"])
    admin(cluster, old, f"CREATE TABLE {TABLE} (id INT PRIMARY KEY)")
    since = cluster.manager.events(CLUSTER, 0, 0)[-1]["id"]
    begun = time.time()
    before = member_of(cluster.status(), old)["unacknowledged"]
    cluster.manager.pause(CLUSTER, "receivers are stopped by hand")
    for name in replicas(cluster.status()):
        admin(cluster, name, "STOP REPLICA IO_THREAD")
    clients = f"SHOW GLOBAL STATUS LIKE '{prefix}_clients'"
    cluster.wait_until(lambda _: admin(cluster, old, clients)[0][1] == "0", SECONDS, "no receiver")

    first = Commit(cluster, old, 1)
    assert first.waits
    with cluster.connect(old) as other, other.cursor() as cursor:
        cursor.execute(f"KILL QUERY {first.session}")  # by the application's own account
    if mysql:
        assert first.waits, "there it lets nothing through"
        admin(cluster, old, f"SET GLOBAL {prefix}_wait_no_replica = 0")
    assert first.answered.wait(10), "its client is told that it is committed"
    cluster.wait_until(lambda _: counted(cluster, old, since) >= 1, SECONDS, "an event")

    waiting = f"SHOW GLOBAL STATUS LIKE '{prefix}_status'"
    cluster.wait_until(
        lambda _: admin(cluster, old, waiting)[0][1] == "ON", SECONDS, "it is put back"
    )
    second = Commit(cluster, old, 2)
    assert second.waits, "commits wait again"
    # a small write of the agent's own may be among them
    status = cluster.wait_until(
        lambda s: (
            member_of(s, old)["unacknowledged"]
            == before + counted(cluster, old, since)
            >= before + 1
        ),
        SECONDS,
        "all are counted",
    )
    assert member_of(status, old)["let_through"]
    number = counted(cluster, old, since)
    text = holdfast(cluster, "status").stdout
    assert f"{old}: transactions acknowledged without a voter so far: {before + number} (" in text

    cluster.kill_server(old)
    for each in (first, second):
        each.close()
    cluster.manager.resume(CLUSTER)
    new = wait_failed_over(cluster, old)
    cluster.wait_whole()
    for member in cluster.spec.members:
        assert admin(cluster, member.name, f"SELECT * FROM {TABLE}") == []
    assert_identical(cluster)
    entries = cluster.manager.history(CLUSTER, 20)
    told = [e for e in entries if e["begun"] >= begun and numbered(e["cause"], old)]
    assert sum(numbered(e["cause"], old) for e in told) == number
    assert {e["what"] for e in told} == {"alarm"}
    number = next(e["number"] for e in entries if (e["what"], e["new"]) == ("failover", new))
    returned: dict[str, Any] = {}

    def is_back(_: object) -> bool:
        returned.update(cluster.manager.history_entry(CLUSTER, number)["returned"])
        return returned["following"] is not None

    cluster.wait_until(is_back, SECONDS, "the history to tell what became of it")
    assert returned["verdict"] != "cut", returned
    assert returned["rewound"] or returned["cloned"], returned


def counted(cluster: Sandbox, member: str, since: int) -> int:
    """How many transactions the events since then mention."""
    return sum(
        numbered(str(event["text"]), member)
        for event in cluster.manager.events(CLUSTER, since, 0)
        if event["kind"] == "unacknowledged"
    )


def numbered(text: str, member: str) -> int:
    said = rf"(\d+) transactions? (was|were) acknowledged without a voter on {member}: "
    found = re.match(said, text)
    return int(found[1]) if found else 0
