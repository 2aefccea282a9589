"""Clients' sessions that keep a replica from applying are found and ended, and no others where the server shows
them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from holdfast.core.gtid import Flavor
from holdfast.server.base import Account, Deadline
from tests.integration.servers import BareServer, bare_servers, wait_until
from tests.integration.test_server_freezing import execute

BACKUP = Account("backup", "backup")
HOLDS = {
    "a read lock of all tables": (("FLUSH TABLES WITH READ LOCK",), "UPDATE app.t SET n = n + 1"),
    "locked tables": (("LOCK TABLES app.t READ",), "UPDATE app.t SET n = n + 1"),
    "a long read before DDL": (("BEGIN", "SELECT * FROM app.t"), "ALTER TABLE app.t ADD z INT"),
    "locked rows": (
        ("BEGIN", "SELECT * FROM app.t FOR UPDATE"),
        "UPDATE app.t SET n = n + 1",
    ),
}
IDLE_SECONDS = 0.15
"""Both servers refresh INNODB_TRX only if it was not read for a tenth of a second."""


def soon() -> Deadline:
    return Deadline(10)


@pytest.fixture(scope="module")
def servers(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as made:
        primary, replica = made
        replica.adapter.follow(primary.source(replica), True, soon())
        primary.adapter.prepare_primary(0, soon())
        primary.adapter.prove(1, 1, soon())
        primary.adapter.open(soon())
        primary.sql("CREATE USER backup@'%' IDENTIFIED BY 'backup'")
        primary.sql("GRANT ALL ON *.* TO backup@'%'")
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
        primary.sql("INSERT INTO app.t (n) VALUES (0), (0)")
        yield made


@pytest.mark.parametrize("how", HOLDS)
def test_who_holds_the_applier_up_is_ended_and_named(servers: list[BareServer], how: str) -> None:
    primary, replica = servers
    statements, write = HOLDS[how]
    if replica.flavor is Flavor.MYSQL:  # which MySQL refuses under super_read_only
        statements = tuple(each.replace("FOR UPDATE", "LOCK IN SHARE MODE") for each in statements)
    replica.adapter.drain(soon())
    assert replica.adapter.free(soon(), True) is None, "nothing waits"
    with closing(replica.connect(BACKUP)) as holder, closing(replica.connect(BACKUP)) as other:
        for statement in statements:
            execute(holder, statement)
        primary.sql(write)
        known = replica.flavor is Flavor.MYSQL or how in ("a long read before DDL", "locked rows")
        ended: list[str] = []

        def freed() -> bool:
            time.sleep(IDLE_SECONDS)
            found = replica.adapter.free(soon(), False)
            if not known and found is not None and not found:
                found = replica.adapter.free(soon(), True)
            ended.extend(map(str, found or ()))
            return bool(ended)

        wait_until(freed, 10, "somebody was found to hold it up")
        replica.adapter.drain(soon())
        assert f"connection {holder.thread_id()} (backup@" in ended[0] or len(ended) == 2
        assert (len(ended) == 1) is known, ended
        if known:
            execute(other, "SELECT 1")
